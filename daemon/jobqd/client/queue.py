"""The asyncio client: enqueue jobs and follow them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from jobqd.client import following, producing
from jobqd.client.procedure import Ear, Procedure, run
from jobqd.client.source import RETRY_FOR, Source, settings_of, source, source_of
from jobqd.client.spec import DEFAULT_PRIORITY, JobSpec, Limits, TypedJob, duration, known_id
from jobqd.keys import Keys
from jobqd.store.connect import Target
from jobqd.store.facts import JobInfo, Progress
from jobqd.store.link import Link
from jobqd.store.listening import Listener, Subscription
from jobqd.store.producing import NewJob

if TYPE_CHECKING:  # producers that give a URL do not pay for pydantic
    from jobqd.settings import Settings

T = TypeVar("T")


class Queue:
    """One queue, for code that runs in asyncio. Make it with `from_env`, `from_url` or `from_settings`.

    It connects when first used. Use it as an async context manager, or call `close` in the end.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._link = Link(source.target, "jobqd-client")
        self._listener = Listener(source.target)

    @classmethod
    def from_env(cls, *, retry_for: float | str = RETRY_FOR) -> Self:
        """Use the settings of `JOBQD_*` variables and jobqd.toml, as the daemon and `jobq` do.

        Raises ConfigError.
        """
        return cls(source_of(settings_of(os.environ), retry_for))

    @classmethod
    def from_settings(cls, settings: Settings, *, retry_for: float | str = RETRY_FOR) -> Self:
        """Use settings that are loaded already. Raises ConfigError."""
        return cls(source_of(settings, retry_for))

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        key_prefix: str = "",
        queue: str = "job_queue",
        username: str | None = None,
        password: str | None = None,
        tls_ca: str | None = None,
        limits: Limits | None = None,
        retry_for: float | str = RETRY_FOR,
    ) -> Self:
        """Use a Redis URL; `retry_for` is how long an enqueue is sent again while Redis is away.

        Raises ConfigError.
        """
        target = Target(url, username=username, password=password, tls_ca=tls_ca, prefix=key_prefix)
        return cls(source(target, Keys(key_prefix, queue), limits or Limits(), retry_for))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def keys(self) -> Keys:
        """The names of this queue's Redis keys."""
        return self._source.keys

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._listener.close()
        await self._link.close()

    async def enqueue(
        self,
        job: str | TypedJob,
        payload: Mapping[str, Any] | None = None,
        *,
        priority: int = DEFAULT_PRIORITY,
        delay: float | str | None = None,
        at: datetime | float | str | None = None,
        id: str | UUID | None = None,
        max_attempts: int | None = None,
        timeout: float | str | None = None,
    ) -> JobHandle:
        """Put one job into the queue and return when Redis has it.

        `job` is a type with its `payload`, or what `handler.args(...)` returns. A lower `priority` runs
        sooner. `delay` is a duration ("5m"), `at` a time with a zone. An `id` that exists is left as it is:
        the handle's `created` is False then. `max_attempts` and `timeout` (one run) go before the daemon's
        settings.

        Raises PayloadError, EnqueueRefused (nothing was written), StoreError.
        """
        spec = JobSpec(job, payload, priority, delay, at, id, max_attempts, timeout)
        return (await self._enqueue([self._source.job(spec)]))[0]

    async def enqueue_many(self, jobs: Iterable[JobSpec | TypedJob]) -> list[JobHandle]:
        """Put many jobs into the queue, 500 in one round trip: JobSpec(type, payload, ...) or handler.args(...).

        All are checked before the first is written. Raises as `enqueue`; jobs of earlier batches stay
        enqueued.
        """
        return await self._enqueue(self._source.jobs(jobs))

    async def _enqueue(self, new: list[NewJob]) -> list[JobHandle]:
        source = self._source
        existing = await self.run(producing.enqueue(source.keys, new, source.limits, source.patience))
        return [JobHandle(self, job.id, status) for job, status in zip(new, existing, strict=True)]

    def job(self, id: str | UUID) -> JobHandle:
        """Return a handle on a job that was enqueued before; asks nothing yet. Raises PayloadError."""
        return JobHandle(self, known_id(id), None)

    async def cancel(self, ids: Sequence[str | UUID]) -> dict[str, str]:
        """End jobs at once, running ones too.

        Tells for each: cancelled (it was running), removed (it waited), already (it was cancelled before),
        gone, completed or failed (it had ended so).
        """
        source, names = self._source, [known_id(id) for id in ids]
        answers = await self.run(producing.cancel(source.keys, names, source.limits, source.patience))
        return dict(zip(names, answers, strict=True))

    async def retry_dead(self, ids: Sequence[str | UUID]) -> dict[str, str]:
        """Give dead letters a new chance.

        Tells for each: retried, gone, or the status of a job that is not dead.
        """
        names = [known_id(id) for id in ids]
        answers = await self.run(producing.dead_retry(self.keys, names, self._source.patience))
        return dict(zip(names, answers, strict=True))

    async def run(self, procedure: Procedure[T], ear: Ear | None = None) -> T:
        """Carry out a reading of `jobqd.store.reading` or another procedure. Raises StoreError."""
        return await run(procedure, self._link, asyncio.sleep, ear)

    def subscribe(self, id: str) -> Subscription:
        """Listen to what is published about one job; all subscriptions of a queue share one connection."""
        return self._listener.subscribe(self.keys.progress(id))


class JobHandle:
    """One job, to be followed.

    `existing` is the status an enqueue found it with: "" is new, None not enqueued here.
    """

    __slots__ = ("_existing", "_queue", "id")

    def __init__(self, queue: Queue, id: str, existing: str | None) -> None:
        self._queue = queue
        self.id = id
        self._existing = existing

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    @property
    def created(self) -> bool:
        """Whether the enqueue that returned this handle made the job.

        False also for an `id` of yours whose enqueue had to be sent twice, because the first reply was lost.
        """
        return self._existing == ""

    @property
    def existing_status(self) -> str | None:
        """The status the job had already when it was enqueued, or None."""
        return self._existing or None

    async def status(self) -> str:
        """Tell the job's status. Raises JobNotFound, StoreError."""
        return await self._queue.run(following.status(self._queue.keys, self.id))

    async def info(self) -> JobInfo:
        """Tell everything about the job. Raises JobNotFound, StoreError."""
        return await self._queue.run(following.info(self._queue.keys, self.id))

    async def progress(self) -> Progress:
        """Tell how far the job is. Raises JobNotFound, StoreError."""
        return await self._queue.run(following.progress(self._queue.keys, self.id))

    async def result(self, timeout: float | str | None = None) -> Any:
        """Wait for the end, at most `timeout` (seconds or "10m"; None: as long as it takes), and return the result.

        Raises JobFailed, JobCancelled, JobNotFound, ResultTimeout; PayloadError for a timeout that is none; StoreError
        where waiting cannot help. A Redis that is away is waited for.
        """
        seconds = None if timeout is None else duration("timeout", timeout)
        ear = _LazyEar(self._queue, self.id)
        try:
            return await self._queue.run(following.result(self._queue.keys, self.id, seconds), ear)
        finally:
            ear.close()

    async def updates(self) -> AsyncIterator[Progress]:
        """Iterate over the progress as it changes, now first.

        Ends after the job's end. Raises JobNotFound.
        """
        ear = _LazyEar(self._queue, self.id)
        last: Progress | None = None
        try:
            while last is None or not last.ended:
                last = await self._queue.run(following.next_update(self._queue.keys, self.id, last), ear)
                yield last
        finally:
            ear.close()

    async def cancel(self) -> bool:
        """End the job at once; false if it had ended already. Raises JobNotFound, StoreError."""
        answers = await self._queue.cancel([self.id])
        return following.was_cancelled(self.id, answers[self.id])


class _LazyEar:
    """Subscribes when it is first listened to: a job that has ended needs no subscription."""

    def __init__(self, queue: Queue, id: str) -> None:
        self._queue = queue
        self._id = id
        self._subscription: Subscription | None = None

    async def next(self, timeout: float) -> str | None:
        if self._subscription is None:
            self._subscription = self._queue.subscribe(self._id)
        return await self._subscription.next(timeout)

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
