"""The calls of producers and operators: enqueue, cancel, a new chance for dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobqd.keys import Keys
from jobqd.scripts import script
from jobqd.store.call import Argument, Call
from jobqd.store.running import FINISHED_MAX

ENQUEUE_MAX = 500
"""Most jobs in one enqueue: a larger number is sent in several calls."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be written. At most one of `delay` (seconds from now) and `at` (Unix seconds) is given."""

    id: str
    priority: int
    fields: Mapping[str, Argument] = field(default_factory=dict)
    delay: float | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """For each job "" or the status it had; or why nothing was written.

    `full`: so many jobs are ready already. `taken`: the key of this id holds a hash that is no job.
    """

    existing: list[str]
    full: int | None = None
    taken: str | None = None


def enqueue(keys: Keys, jobs: Sequence[NewJob], *, max_ready: int) -> Call[Enqueued]:
    """Write new jobs (at most ENQUEUE_MAX); an id that exists is left as it is, so sending it again is safe."""
    args: list[Argument] = [keys.job_prefix, max_ready]
    for job in jobs:
        when: tuple[Argument, Argument] = ("now", 0)
        if job.delay is not None:
            when = ("delay", job.delay)
        elif job.at is not None:
            when = ("at", job.at)
        args += (job.id, job.priority, *when, 2 * len(job.fields) + 2, "priority", job.priority)
        for item in job.fields.items():
            args += item
    return Call(script("enqueue"), keys.base, args, _enqueued)


def _enqueued(reply: Any) -> Enqueued:
    if reply[0] == "full":
        return Enqueued([], full=int(reply[1]))
    if reply[0] == "taken":
        return Enqueued([], taken=str(reply[1]))
    return Enqueued(list(reply[1]))


def cancel(keys: Keys, job_ids: Sequence[str], *, job_ttl: float) -> Call[list[str]]:
    """End jobs at once.

    For each: cancelled (it was running), removed (it was waiting), already (it was cancelled before), gone,
    completed or failed (it had ended so).
    """
    args: list[Argument] = [
        keys.job_prefix, keys.progress_prefix, keys.control, max(1, int(job_ttl)), FINISHED_MAX, *job_ids,
    ]  # fmt: skip
    return Call(script("cancel"), keys.base, args, list)


def dead_retry(keys: Keys, job_ids: Sequence[str]) -> Call[list[str]]:
    """Put dead-lettered jobs back into the queue; for each: retried, gone, or the status of one that is not dead."""
    return Call(script("dead_retry"), keys.base, [keys.job_prefix, keys.progress_prefix, *job_ids], list)
