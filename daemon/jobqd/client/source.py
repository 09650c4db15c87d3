"""From a URL, settings or the environment to what a queue is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobqd.client.ids import Ids
from jobqd.client.producing import Patience
from jobqd.client.spec import JobSpec, Limits, TypedJob, as_spec, new_job
from jobqd.errors import ConfigError, PayloadError
from jobqd.keys import Keys
from jobqd.store.connect import Target
from jobqd.store.producing import NewJob
from jobqd.units import parse_duration

if TYPE_CHECKING:  # producers that give a URL do not pay for pydantic
    from jobqd.settings import Settings

RETRY_FOR = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a queue is, what it keeps to, and what makes its ids."""

    target: Target
    keys: Keys
    limits: Limits
    patience: Patience
    ids: Ids

    def job(self, spec: JobSpec) -> NewJob:
        """Return a job to be written. Raises PayloadError."""
        return new_job(spec, self.ids.next(), self.limits)

    def jobs(self, jobs: Iterable[JobSpec | TypedJob]) -> list[NewJob]:
        """Return the jobs to be written. Raises PayloadError that tells which of them is wrong."""
        return [self._nth(number, job) for number, job in enumerate(jobs)]

    def _nth(self, number: int, job: JobSpec | TypedJob) -> NewJob:
        try:
            return self.job(as_spec(job))
        except PayloadError as error:
            raise PayloadError(f"jobs[{number}]: {error}") from None


def source(target: Target, keys: Keys, limits: Limits, retry_for: float | str) -> Source:
    """Return a source; `retry_for` is a duration. Raises ConfigError."""
    try:
        patience = Patience(parse_duration(retry_for))
    except ValueError as error:
        raise ConfigError(f"retry_for: {error}") from None
    return Source(target, keys, limits, patience, Ids())


def source_of(settings: Settings, retry_for: float | str) -> Source:
    """Return the source that settings describe. Raises ConfigError."""
    limits = Limits(settings.max_payload, settings.max_ready, settings.job_ttl)
    return source(Target.of(settings), Keys(settings.key_prefix, settings.queue), limits, retry_for)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Return the settings as `jobq` and the daemon read them, from this environment and directory."""
    from jobqd.settings import load  # noqa: PLC0415 - see above

    return load(environ=environ, cwd=Path()).settings
