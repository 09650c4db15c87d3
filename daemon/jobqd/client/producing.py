"""How jobs are enqueued and cancelled: in batches, sent again while Redis is away, refusals in plain words."""

from __future__ import annotations

import random as randomness
import time
from collections.abc import Callable, Iterator, Sequence

from jobqd.client.procedure import Pause, Procedure, T
from jobqd.client.spec import Limits
from jobqd.errors import EnqueueRefused, StoreError, StoreFault
from jobqd.keys import Keys
from jobqd.store import producing
from jobqd.store.call import Call
from jobqd.store.producing import ENQUEUE_MAX, Enqueued, NewJob
from jobqd.store.reading import Reading

_BATCH_BYTES = 4 * 2**20
"""Most payload in one call: the server does nothing else while it writes a batch."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_SEND_AGAIN = frozenset({StoreFault.DOWN, StoreFault.BUSY, StoreFault.READONLY})


class Patience:
    """How long a call is sent again while Redis is away: `seconds`, in pauses that double, half of each random."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._random = random

    def call(self, call: Call[T]) -> Procedure[T]:
        """Send a call that is safe to repeat until it is answered, or raise the last StoreError."""
        give_up, pause = self._clock() + self.seconds, _FIRST_PAUSE
        while True:
            try:
                return (yield call)  # type: ignore[no-any-return]
            except StoreError as error:
                wait = pause / 2 + self._random() * pause / 2
                if error.fault not in _SEND_AGAIN or self._clock() + wait > give_up:
                    raise
            yield Pause(wait)
            pause = min(_LONGEST_PAUSE, pause * 2)


def enqueue(keys: Keys, jobs: Sequence[NewJob], limits: Limits, patience: Patience) -> Procedure[list[str]]:
    """Write jobs.

    Return for each "" or, for an id that exists, its status. Raises EnqueueRefused, StoreError.
    """
    answers: list[str] = []
    for batch in batches(jobs):
        so_far = f" ({len(answers)} of {len(jobs)} jobs were enqueued before)" if len(jobs) > 1 else ""
        try:
            reply = yield from patience.call(producing.enqueue(keys, batch, max_ready=limits.max_ready))
        except StoreError as error:
            refused = _refused(error, batch, patience, so_far)
            refused.enqueued = tuple(job.id for job in jobs[: len(answers)])
            raise refused from None
        if why := _not_written(reply, keys, limits):
            unwritten = EnqueueRefused(why + so_far)
            unwritten.enqueued = tuple(job.id for job in jobs[: len(answers)])
            raise unwritten
        answers += reply.existing
    return answers


def _not_written(reply: Enqueued, keys: Keys, limits: Limits) -> str:
    """Return why a batch was refused; empty if it was not."""
    if reply.taken is not None:
        return (
            f"{keys.job(reply.taken)} is a hash that is no job (it has no type): choose another id, or "
            "give this queue a key_prefix"
        )
    if reply.full is not None:
        return (
            f"{reply.full} jobs are ready already and max_ready is {limits.max_ready}: let the daemons "
            "catch up, or raise max_ready"
        )
    return ""


def batches(jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
    """Split jobs into calls of at most 500 jobs and about 4 MiB."""
    batch: list[NewJob] = []
    size = 0
    for job in jobs:
        weight = len(str(job.fields.get("payload", "")))
        if batch and (len(batch) >= ENQUEUE_MAX or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += weight
    if batch:
        yield batch


def _refused(
    error: StoreError, batch: Sequence[NewJob], patience: Patience, so_far: str
) -> EnqueueRefused | StoreError:
    if error.fault is StoreFault.FULL:
        return EnqueueRefused(
            "Redis is at its memory limit (maxmemory), so nothing was written: free memory or raise the limit"
            f"{so_far}; Redis said: {error}"
        )
    if error.fault is StoreFault.DISK:
        return EnqueueRefused(
            f"Redis refuses writes until it can save them, so nothing was written: see its log{so_far}; "
            f"Redis said: {error}"
        )
    if error.fault in _SEND_AGAIN:
        which = f"job {batch[0].id} was" if len(batch) == 1 else "these jobs were"
        told = StoreError(
            error.fault,
            f"Redis did not answer for {patience.seconds:g} s, so it is not known whether {which} enqueued; "
            f"sending the same ids again is safe{so_far}: {error}",
        )
        told.in_doubt = tuple(job.id for job in batch)
        return told
    return error


def cancel(keys: Keys, ids: Sequence[str], limits: Limits, patience: Patience) -> Procedure[list[str]]:
    """End jobs.

    For each: cancelled (it was running), removed (it waited), already (it was cancelled before), gone, completed
    or failed (it had ended so).
    """
    answers: list[str] = []
    for start in range(0, len(ids), ENQUEUE_MAX):
        call = producing.cancel(keys, ids[start : start + ENQUEUE_MAX], job_ttl=limits.job_ttl)
        answers += yield from patience.call(call)
    return answers


def dead_retry(keys: Keys, ids: Sequence[str], patience: Patience) -> Procedure[list[str]]:
    """Give dead letters a new chance; for each: retried, gone, or the status of a job that is not dead."""
    answers: list[str] = []
    for start in range(0, len(ids), ENQUEUE_MAX):
        answers += yield from patience.call(producing.dead_retry(keys, ids[start : start + ENQUEUE_MAX]))
    return answers


def dead_ids(keys: Keys) -> Reading[list[str]]:
    """Name every dead letter, newest first."""
    (kind,) = yield [("TYPE", keys.dead)]
    if kind != "list":
        return []
    (ids,) = yield [("LRANGE", keys.dead, 0, -1)]
    return list(dict.fromkeys(ids))
