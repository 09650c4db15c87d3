"""The client for plain code: the same as Queue without await, for any number of threads, safe over a fork."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from jobqd.client import following, producing
from jobqd.client.procedure import Procedure, run_sync
from jobqd.client.source import RETRY_FOR, Source, settings_of, source, source_of
from jobqd.client.spec import DEFAULT_PRIORITY, JobSpec, Limits, TypedJob, duration, known_id
from jobqd.keys import Keys
from jobqd.store.connect import Target
from jobqd.store.facts import JobInfo, Progress
from jobqd.store.link import SyncLink
from jobqd.store.producing import NewJob

if TYPE_CHECKING:  # producers that give a URL do not pay for pydantic
    from jobqd.settings import Settings

T = TypeVar("T")


class SyncQueue:
    """One queue, for code without asyncio. Make it with `from_env`, `from_url` or `from_settings`.

    It connects when first used, and runs no thread and no event loop of its own.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._link = SyncLink(source.target)

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
        """Use a Redis URL, as `Queue.from_url`. Raises ConfigError."""
        target = Target(url, username=username, password=password, tls_ca=tls_ca, prefix=key_prefix)
        return cls(source(target, Keys(key_prefix, queue), limits or Limits(), retry_for))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def keys(self) -> Keys:
        """The names of this queue's Redis keys."""
        return self._source.keys

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        self._link.close()

    def enqueue(
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
    ) -> SyncJobHandle:
        """Put one job into the queue and return when Redis has it.

        Parameters and errors are those of `Queue`.
        """
        spec = JobSpec(job, payload, priority, delay, at, id, max_attempts, timeout)
        return self._enqueue([self._source.job(spec)])[0]

    def enqueue_many(self, jobs: Iterable[JobSpec | TypedJob]) -> list[SyncJobHandle]:
        """Put many jobs into the queue, as `Queue.enqueue_many`."""
        return self._enqueue(self._source.jobs(jobs))

    def _enqueue(self, new: list[NewJob]) -> list[SyncJobHandle]:
        source = self._source
        existing = self.run(producing.enqueue(source.keys, new, source.limits, source.patience))
        return [SyncJobHandle(self, job.id, status) for job, status in zip(new, existing, strict=True)]

    def job(self, id: str | UUID) -> SyncJobHandle:
        """Return a handle on a job that was enqueued before; asks nothing yet. Raises PayloadError."""
        return SyncJobHandle(self, known_id(id), None)

    def cancel(self, ids: Sequence[str | UUID]) -> dict[str, str]:
        """End jobs at once, as `Queue.cancel`."""
        source, names = self._source, [known_id(id) for id in ids]
        answers = self.run(producing.cancel(source.keys, names, source.limits, source.patience))
        return dict(zip(names, answers, strict=True))

    def retry_dead(self, ids: Sequence[str | UUID]) -> dict[str, str]:
        """Give dead letters a new chance.

        Tells for each: retried, gone, or the status of a job that is not dead.
        """
        names = [known_id(id) for id in ids]
        answers = self.run(producing.dead_retry(self.keys, names, self._source.patience))
        return dict(zip(names, answers, strict=True))

    def run(self, procedure: Procedure[T]) -> T:
        """Carry out a reading of `jobqd.store.reading` or another procedure. Raises StoreError."""
        return run_sync(procedure, self._link)


class SyncJobHandle:
    """One job, to be followed, as `JobHandle` without await."""

    __slots__ = ("_existing", "_queue", "id")

    def __init__(self, queue: SyncQueue, id: str, existing: str | None) -> None:
        self._queue = queue
        self.id = id
        self._existing = existing

    def __repr__(self) -> str:
        return f"<SyncJobHandle {self.id}>"

    @property
    def created(self) -> bool:
        """Whether the enqueue that returned this handle made the job, as `JobHandle.created`."""
        return self._existing == ""

    @property
    def existing_status(self) -> str | None:
        """The status the job had already when it was enqueued, or None."""
        return self._existing or None

    def status(self) -> str:
        """Tell the job's status. Raises JobNotFound, StoreError."""
        return self._queue.run(following.status(self._queue.keys, self.id))

    def info(self) -> JobInfo:
        """Tell everything about the job. Raises JobNotFound, StoreError."""
        return self._queue.run(following.info(self._queue.keys, self.id))

    def progress(self) -> Progress:
        """Tell how far the job is. Raises JobNotFound, StoreError."""
        return self._queue.run(following.progress(self._queue.keys, self.id))

    def result(self, timeout: float | str | None = None) -> Any:
        """Wait for the end, at most `timeout` (seconds or "10m"), and return the result, as `JobHandle.result`.

        It looks after 50 ms, then ever more seldom, to once a second.
        """
        seconds = None if timeout is None else duration("timeout", timeout)
        return self._queue.run(following.result(self._queue.keys, self.id, seconds))

    def updates(self) -> Iterator[Progress]:
        """Iterate over the progress as it changes, now first.

        Ends after the job's end. Raises JobNotFound.
        """
        last: Progress | None = None
        while last is None or not last.ended:
            last = self._queue.run(following.next_update(self._queue.keys, self.id, last))
            yield last

    def cancel(self) -> bool:
        """End the job at once; false if it had ended already. Raises JobNotFound, StoreError."""
        return following.was_cancelled(self.id, self._queue.cancel([self.id])[self.id])
