"""What one daemon counts while it runs: plain numbers, written by the event loop alone, read by any thread.

Not the counters of prometheus-client: each of those takes a lock, and ten thousand jobs a second would feel it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Protocol

from jobqd.runs import Run

OTHER = "other"
"""Stands for every type without a handler here: what a producer writes must not add time series without end."""
OUTCOMES = ("completed", "retried", "dead", "snoozed", "interrupted", "lost", "cancelled", "unrecorded")
SCRIPTS = ("claim", "settle")
"""The round trips that every job pays for."""

RUN_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 7200.0)
WAIT_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
TRIP_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)

_ACCEPTED = {
    "completed": "completed", "retrying": "retried", "dead": "dead", "scheduled": "snoozed", "ready": "interrupted",
}  # fmt: skip
_REFUSED = {"cancelled": "cancelled", "stale": "lost", "gone": "lost"}


class Histogram:
    """Counts of values up to each bound (in seconds), and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Take a value in."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return (bound, how many values up to it) in order, as Prometheus wants it, and the sum of all values."""
        # The sum is read first: a value that comes in between is then only counted too early.
        total, counts, so_far = self._sum, list(self._counts), 0
        rows = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            so_far += count
            rows.append((bound, float(so_far)))
        return rows, total


class TypeTally:
    """What was counted of one type."""

    __slots__ = ("ended", "ran", "started", "waited")

    def __init__(self) -> None:
        self.started = 0
        self.ended = dict.fromkeys(OUTCOMES, 0)
        self.ran = Histogram(RUN_BOUNDS)
        self.waited = Histogram(WAIT_BOUNDS)


class Observer(Protocol):
    """Whoever is told what happens to runs; called on the event loop, for every job."""

    def started(self, run: Run) -> None:
        """Take note of a run that begins."""

    def settled(self, run: Run, to: str, answer: str) -> None:
        """Take note of a run that was to go `to` (see `jobqd.retry.Settlement`), and of what Redis answered."""

    def replied(self, script: str, seconds: float) -> None:
        """Take note of a script's reply, so many seconds after it was sent."""

    def lease_lost(self) -> None:
        """Take note of a run whose lease is somebody else's."""


class Silent:
    """An observer that takes no notes: metrics are off."""

    def started(self, run: Run) -> None:
        """Do nothing."""

    def settled(self, run: Run, to: str, answer: str) -> None:
        """Do nothing."""

    def replied(self, script: str, seconds: float) -> None:
        """Do nothing."""

    def lease_lost(self) -> None:
        """Do nothing."""


class Tally:
    """An observer that counts, by type of job."""

    def __init__(self, types: Iterable[str]) -> None:
        self.types = tuple(types)
        self.by_type = {name: TypeTally() for name in self.types}
        self._other = self.by_type.setdefault(OTHER, TypeTally())
        self.trips = {name: Histogram(TRIP_BOUNDS) for name in SCRIPTS}
        self.leases_lost = 0
        self.claimed = False
        """Whether Redis has answered a claim yet."""

    def started(self, run: Run) -> None:
        """Count a run that begins, and how long its job was due before."""
        tally = self.by_type.get(run.claimed.type, self._other)
        tally.started += 1
        waited = run.claimed.waited()
        if waited is not None:
            tally.waited.observe(waited)

    def settled(self, run: Run, to: str, answer: str) -> None:
        """Count a run that ended, and how long it took. One that never began was not counted either."""
        if run.task is None:
            return
        tally = self.by_type.get(run.claimed.type, self._other)
        tally.ended[outcome(to, answer)] += 1
        tally.ran.observe(run.ended - run.started)

    def replied(self, script: str, seconds: float) -> None:
        """Count a round trip, if it is one of those that jobs pay for."""
        trips = self.trips.get(script)
        if trips is not None:
            trips.observe(seconds)
            self.claimed = self.claimed or script == "claim"

    def lease_lost(self) -> None:
        """Count a lost lease."""
        self.leases_lost += 1


def outcome(to: str, answer: str) -> str:
    """Return the one of OUTCOMES for where a run was to go and what Redis answered.

    `already` is the second answer to a settle whose first one was lost.
    """
    if answer in ("ok", "already"):
        return _ACCEPTED[to]
    return _REFUSED.get(answer, "unrecorded")
