"""What a scenario measured, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.fault.books import Books

published: list[str] = []
"""The lines of the test that runs, for the summary of the whole run; pytest runs one at a time in a process."""


@dataclass(frozen=True)
class Figures:
    """Runs that began, how many of them were for nothing, refused outcomes, seconds until what was lost ran again."""

    title: str
    injected: str
    jobs: int
    runs: int
    duplicates: int
    refused: int
    recoveries: Sequence[float]

    def line(self) -> str:
        """Return the figures for people."""
        p50, p99 = quantile(self.recoveries, 0.5), quantile(self.recoveries, 0.99)
        return (
            f"{self.title}: {self.injected} | jobs {self.jobs}, runs {self.runs}, duplicates {self.duplicates}, "
            f"refused {self.refused}, recovery p50 {p50} p99 {p99}"
        )


def quantile(values: Sequence[float], share: float) -> str:
    """Return a quantile in seconds as text, a dash if there are no values."""
    if not values:
        return "–"
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]:.2f} s"


def count_duplicates(books: Books) -> int:
    """Return how many runs began beyond those that ended by themselves and were charged as attempts."""
    return sum(max(0, len(runs) - _own_ends(books, job_id)) for job_id, runs in books.runs.items())


def _own_ends(books: Books, job_id: str) -> int:
    """Return how many runs of a job ended by themselves; of one that Redis lost, one is taken to have."""
    if job_id not in books.jobs:
        return 1
    job = books.jobs[job_id]
    others = (job_id in books.snoozed) + len(books.earlier.get(job_id, ())) + (job.get("status") == "cancelled")
    return int(job.get("attempts", 0)) + others


def reruns(books: Books, faults: Sequence[float]) -> list[float]:
    """Return for each run that followed a lost one the seconds since the last fault before it."""
    found = []
    for runs in books.runs.values():
        for before, run in pairwise(runs):
            earlier = [at for at in faults if at < run.started]
            if earlier and run.attempt == before.attempt:
                found.append(run.started - max(earlier))
    return found
