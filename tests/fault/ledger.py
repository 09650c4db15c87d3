"""What handlers did, in the order in which they did it, kept outside Redis: a file of lines, each synced to disk."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class LedgerRun:
    """One run as its handler saw it. Times are CLOCK_MONOTONIC, which all processes of a machine share."""

    job_id: str
    attempt: int
    fence: int
    pid: int
    started: float
    ended: float | None = None

    @property
    def name(self) -> tuple[int, int]:
        """(pid, fence): what names a run even after Redis lost its writes."""
        return (self.pid, self.fence)


class RunLedger:
    """The file in an application's directory. Handlers write `start` and `end`; the test reads."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "runs"

    def start(self, job: Any) -> None:
        """Note that a run of this job begins."""
        self.note("start", job)

    def end(self, job: Any) -> None:
        """Note that its effect is made; what follows is only the return."""
        self.note("end", job)

    def note(self, what: str, job: Any) -> None:
        """Note something else that a run has done."""
        line = f"{what} {job.id} {job.attempt} {job.fence} {os.getpid()} {time.monotonic():.6f}\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lines(self) -> list[list[str]]:
        """Return the words of every line."""
        return [line.split() for line in self._file.read_text().splitlines()] if self._file.exists() else []

    def count(self, what: str) -> int:
        """Return how many lines begin so."""
        return sum(words[0] == what for words in self.lines())

    def runs(self) -> dict[str, list[LedgerRun]]:
        """Return the runs of each job, in the order of their starts."""
        runs: defaultdict[str, list[LedgerRun]] = defaultdict(list)
        for what, job_id, attempt, fence, pid, at in self.lines():
            if what == "start":
                runs[job_id].append(LedgerRun(job_id, int(attempt), int(fence), int(pid), float(at)))
            elif what == "end":
                name = (int(pid), int(fence))
                open_runs = (run for run in reversed(runs[job_id]) if run.name == name and run.ended is None)
                next(open_runs).ended = float(at)
        return runs

    def clear(self) -> None:
        """Forget all runs; only while nothing runs."""
        self._file.unlink(missing_ok=True)
