"""What a scenario measured, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.fault.checker import Books


@dataclass(frozen=True)
class Figures:
    """Runs that began, runs beyond the first of a job, refused outcomes, and seconds until what was lost ran again."""

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


def reruns(books: Books, faults: Sequence[float]) -> list[float]:
    """Return for each run that followed a lost one the seconds since the last fault before it."""
    found = []
    for runs in books.runs.values():
        for run in runs[1:]:
            earlier = [at for at in faults if at < run.started]
            if earlier:
                found.append(run.started - max(earlier))
    return found
