"""Random sequences of everything, on each server. A failure prints the steps and a blob that repeats them."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.machine import QueueMachine
from tests.support.lab import Lab

EXAMPLES = int(os.environ.get("JOBQD_TEST_EXAMPLES", "100"))
PHASES = (Phase.generate,) if "JOBQD_TEST_NO_SHRINK" in os.environ else (Phase.generate, Phase.shrink)
"""Shrinking a failure to its fewest steps can take minutes."""
# With CI in the environment the same sequences are tried each time: what lands does not depend on chance.


@pytest.mark.timeout(600)
def test_the_invariants_hold_whatever_happens(lab: Lab) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(lab),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None, print_blob=True,
            phases=PHASES, report_multiple_bugs=False, derandomize="CI" in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
