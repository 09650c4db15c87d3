"""The tables of `tests.mutants` and `tests.guards`, which are not run with the tests: they must not fall behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards import GUARDS
from tests.mutants import MUTANTS
from tests.support.guard import PACKAGE, ROOT, Guard

ALL = [*(mutant.guard for mutant in MUTANTS), *GUARDS]


@pytest.mark.parametrize("guard", ALL, ids=lambda guard: f"{guard.file}: {guard.what}")
def test_it_can_be_taken_out_and_its_test_exists(guard: Guard) -> None:
    assert guard.old in guard.source
    file, test = guard.test.split("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def test_the_tests_run_the_package_that_they_are_told_to(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "jobqd")
    (tmp_path / "jobqd" / "scripts" / "claim.lua").write_text("-- broken")
    look = "import tests.conftest, jobqd.scripts; print(jobqd.scripts.script('claim').source.decode())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout == b"-- broken\n"


def test_the_guarantees_say_how_many_there_are() -> None:
    assert f"({len(MUTANTS)} of\nthem" in (ROOT / "docs/guarantees.md").read_text()
