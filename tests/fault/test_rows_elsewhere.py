"""Rows of other places, and the mix of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.soak import soaking


@pytest.mark.skip(reason="shown by tests/integration/test_children.py")
def test_row_03_a_poison_job_among_a_hundred() -> None: ...


@pytest.mark.skip(reason="shown by tests/integration/test_redis_at_large.py")
def test_row_21_a_failover_with_sentinel() -> None: ...


@pytest.mark.skip(reason="shown by tests/integration/test_daemon_programs.py and test_programs.py")
def test_row_27_a_stop_while_a_program_runs() -> None: ...


@pytest.mark.skip(reason="shown by tests/property/test_injected_errors.py")
def test_row_28_an_error_at_every_call_of_every_script() -> None: ...


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_row_29_a_random_mix(tmp_path: Path, seed: int) -> None:
    with soaking(tmp_path, seed) as soak:
        for number in range(1, 7):
            soak.round(number)
        assert soak.flat(), soak.growth()
