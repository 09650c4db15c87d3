"""The table of `python -m tests.mutants`, which is not run with the tests: it must not fall behind the scripts."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, SCRIPTS, SUITES, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.script}: {mutant.what}")
def test_it_can_be_applied_and_its_test_exists(mutant: Mutant) -> None:
    assert mutant.old in (SCRIPTS / f"{mutant.script}.lua").read_text()
    assert f"def {mutant.test}(" in (ROOT / SUITES[mutant.suite]).read_text()


def test_the_guarantees_say_how_many_there_are() -> None:
    assert f"({len(MUTANTS)} of\nthem" in (ROOT / "docs/guarantees.md").read_text()
