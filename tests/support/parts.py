"""What the daemon's parts are made with in a test: a world of its own, plain policies, jobs as Redis gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobqd.clock import World
from jobqd.job import Claimed
from jobqd.runs import Policy, Run
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog

POLICY = Policy(
    max_attempts=3, timeout=60.0, retry_delay=10.0, retry_max_delay=900.0, job_ttl=3600.0, dead_ttl=86400.0,
    max_age=30 * 86400.0, drain_timeout=60.0,
)  # fmt: skip
NOW = 1_763_900_000.0


def policy(**changes: Any) -> Policy:
    """Return the plain policy with some limits changed."""
    return replace(POLICY, **changes)


def world(clock: Any = None, random: Callable[[], float] = lambda: 0.5, log: RecordingLog | None = None) -> World:
    """Return a world whose clock stands still, unless one is given."""
    return World(clock or ManualClock(), random, log or RecordingLog())


def claimed(job_id: str = "job", fence: int = 1, score: float = 10.0, **fields: object) -> Claimed:
    """Return a job as a claim gives it."""
    return Claimed(job_id, fence, score, NOW, {name: str(value) for name, value in fields.items()})


def run_of(job: Claimed, limits: Policy = POLICY, handler: Any = None, started: float = 0.0) -> Run:
    """Return a run of a job."""
    return Run(job, handler, limits, started)
