"""The runs that live in this process: which jobs it leases, since when, and how they end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobqd.job import Claimed


class Ending(StrEnum):
    """Why the daemon ended a run before its handler returned."""

    TIMEOUT = "timeout"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    LOST = "lost its lease"
    STOP = "the daemon stops"


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of one job, resolved: job hash over settings over decorator over global. Times in seconds."""

    max_attempts: int
    timeout: float
    retry_delay: float
    retry_max_delay: float
    job_ttl: float
    dead_ttl: float
    max_age: float
    drain_timeout: float
    stall_timeout: float | None = None
    max_crashes: int = 3
    """One crash below it the job is a suspect."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` is its value as a JSON text."""

    result: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run failed by itself. `final` means that trying again is useless; `delay` overrides the backoff."""

    error: str
    error_type: str
    traceback: str = ""
    delay: float | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler asked to be run again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """We ended the run, or never began it (`begun` is false): it is handed back uncharged."""

    reason: str
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The lease ran out, or its daemon is known to be dead."""

    reason: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process that ran this job alone died under it; `error` tells how, `traceback` the last that it printed."""

    error: str
    traceback: str = ""


Outcome = Completed | Failed | Snoozed | Interrupted | Lapsed | Crashed
"""How a run ended: data, not exceptions. Each leads to exactly one settlement (see `jobqd.retry`)."""


class Run:
    """One run of one job in this process, from its claim until Redis has its outcome."""

    __slots__ = (
        "asked", "child", "claimed", "context", "ended", "ending", "given_up", "handler", "outcome", "performing",
        "policy", "returned", "started", "stopping", "suspect", "task", "thread", "thread_id",
    )  # fmt: skip

    def __init__(self, claimed: Claimed, handler: Any, policy: Policy, started: float) -> None:
        self.claimed = claimed
        self.handler = handler
        self.policy = policy
        self.started = started
        """Monotonic time at which it was claimed."""
        self.ended = started
        """Monotonic time at which its handler ended."""
        self.ending: Ending | None = None
        self.returned = False
        """True from the end of the application's code: a stop has nothing left to end."""
        self.outcome: Outcome | None = None
        """How the application's code ended, while what it left is cleared away: a stop must not make it run again."""
        self.asked = False
        """Whether a stop asked it to finish, perhaps before its handler began."""
        self.given_up = False
        """True once a stop has handed its job back although it had not ended."""
        self.performing = False
        """True while the application's code runs: only then may the task be cancelled."""
        self.task: asyncio.Task[None] | None = None
        self.context: Any = None
        """What its handler was given, where it takes its job; ends its programs."""
        self.stopping: asyncio.Event | None = None
        self.thread: Any = None
        """The `threading.Event` of a `def` handler, set together with `stopping`."""
        self.thread_id = 0
        """The thread that runs a `def` handler (`threading.get_ident`)."""
        self.child: Any = None
        """The `jobqd.children.ChildRun`, if it runs in a process of its own."""
        self.suspect = claimed.crashes >= policy.max_crashes - 1
        """Whether it crashed so often that it runs in a process of its own: only that one's death convicts it."""

    @property
    def key(self) -> tuple[str, int]:
        """(id, fence): one job may have an older run here that has not ended yet."""
        return (self.claimed.id, self.claimed.fence)

    def ask_to_finish(self) -> None:
        """Set the `stopping` of its job, wherever that is or will be."""
        self.asked = True
        if self.stopping is not None:
            self.stopping.set()
        if self.thread is not None:
            self.thread.set()
        if self.child is not None:
            self.child.ask_to_finish()


class Runs:
    """Every run whose lease this process holds, readable from the heartbeat's thread.

    A run is added when claimed and removed only when its outcome is settled or refused, so that a result that
    waits for Redis keeps its lease.
    """

    # Keyed by the run itself: after Redis lost its writes, two runs here can have the same id and fence.

    __slots__ = ("_ids", "_runs")

    def __init__(self) -> None:
        self._runs: dict[Run, None] = {}
        self._ids: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.snapshot())

    def snapshot(self) -> list[Run]:
        """Return the runs as they are now; copying a dict's keys is one step under the interpreter's lock."""
        return list(self._runs)

    def of(self, job_id: str) -> list[Run]:
        """Return the runs of one job; more than one only after a lost lease."""
        return [run for run in self.snapshot() if run.claimed.id == job_id] if job_id in self._ids else []

    def holds(self, job_id: str) -> bool:
        """Whether a run of this job still lives here."""
        return job_id in self._ids

    def add(self, run: Run) -> None:
        """Take a run in."""
        self._runs[run] = None
        self._ids[run.claimed.id] += 1

    def remove(self, run: Run) -> bool:
        """Let a run go; false if it was gone already."""
        if run not in self._runs:
            return False
        del self._runs[run]
        job_id = run.claimed.id
        self._ids[job_id] -= 1
        if not self._ids[job_id]:
            del self._ids[job_id]
        return True
