"""What tests.mutants and tests.guards do: take guards out of copies of the package, where a named test must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "jobqd"


@dataclass(frozen=True)
class Guard:
    """`old` becomes `new` at its first place in a file of the package; `test`, one of tests/, must fail then."""

    file: str
    what: str
    old: str
    new: str
    test: str

    @property
    def source(self) -> str:
        """The file as it is."""
        return (PACKAGE / self.file).read_text()

    def outcome(self) -> str:
        """Return "killed", or what is wrong: "survived", "not applicable", or that the test could not run."""
        source = self.source
        if self.old not in source:
            return "not applicable: the text is not in the file"
        with tempfile.TemporaryDirectory(prefix="jq") as directory:
            package = Path(directory) / "jobqd"
            shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
            (package / self.file).write_text(source.replace(self.old, self.new, 1))
            status = run_tests([self.test], package.parent)
        return {0: "survived", 1: "killed"}.get(status, f"the test did not run (pytest exit {status})")


def run_tests(tests: Sequence[str], package: Path) -> int:
    """Run tests of tests/ on the package jobqd in a directory; return pytest's exit status (1: a test failed)."""
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{t}" for t in tests)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False).returncode


def take_out(guards: Sequence[Guard], words: Sequence[str]) -> int:
    """Try the guards whose file or reason holds one of the words, all without words; print a table.

    Returns an exit status: 1 if one is not missed.
    """
    chosen = [guard for guard in guards if not words or any(word in f"{guard.file}: {guard.what}" for word in words)]
    if run_tests(sorted({guard.test for guard in chosen}), PACKAGE.parent):
        print("the tests fail on the package as it is: mend that first")
        return 1
    results = []
    for guard in chosen:
        results.append(guard.outcome())
        print(f"{results[-1]:9} {guard.file:22} {guard.what:50} {guard.test}", flush=True)
    killed = results.count("killed")
    print(f"{killed} of {len(results)} mutants killed")
    return 0 if killed == len(results) else 1
