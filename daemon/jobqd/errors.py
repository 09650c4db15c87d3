"""Every exception of jobqd, those it raises and those a handler raises to it."""

from __future__ import annotations

from enum import StrEnum

from jobqd.units import parse_duration

EX_USAGE = 2
"""Exit status for a command line that cannot be understood."""
EX_UNAVAILABLE = 69
"""Exit status when Redis cannot be reached (sysexits.h, EX_UNAVAILABLE)."""
EX_SOFTWARE = 70
"""Exit status after a defect of jobqd itself (sysexits.h, EX_SOFTWARE)."""
EX_CONFIG = 78
"""Exit status for a configuration that cannot be used (sysexits.h, EX_CONFIG)."""


class JobqdError(Exception):
    """Base of every error that jobqd raises."""


class ConfigError(JobqdError):
    """The configuration cannot be used; the message names the setting, its value and the remedy."""


class StartError(JobqdError):
    """The application's own start failed: the import of its handlers, or `@handlers.lifespan`."""


class PayloadError(JobqdError, ValueError):
    """The payload or the options of an enqueue are not acceptable; nothing was written."""


class ArgumentError(JobqdError, ValueError):
    """A job's fields do not fit its handler's parameters; the message names the argument."""


class EnqueueRefused(JobqdError):  # noqa: N818 - says what happened
    """Redis or a limit refused the enqueue; nothing was written but the jobs of `enqueued`."""

    enqueued: tuple[str, ...] = ()
    """Ids that were enqueued before the refusal: of many jobs some may be in earlier calls."""


class JobNotFound(JobqdError, LookupError):  # noqa: N818 - says what happened
    """There is no job of that id (never enqueued, or its TTL has passed)."""


class JobFailed(JobqdError):  # noqa: N818 - says what happened
    """The job whose result was asked for is in the dead-letter list."""

    def __init__(self, job_id: str, error: str, error_type: str = "", attempts: int = 0) -> None:
        self.job_id, self.error, self.error_type, self.attempts = job_id, error, error_type, attempts
        super().__init__(f"job {job_id} failed after {attempts} attempt{'s' * (attempts != 1)}: {error}")


class JobCancelled(JobqdError):  # noqa: N818 - says what happened
    """The job whose result was asked for was cancelled."""


class ResultTimeout(JobqdError, TimeoutError):  # noqa: N818 - says what happened
    """The job did not end within the time given; it goes on."""


class StoreFault(StrEnum):
    """What a failed Redis command means to the caller."""

    DOWN = "down"
    """No answer, or the server is loading: the command may have run. Wait and send it again."""
    BUSY = "busy"
    """A script or a fail-over holds the server: wait."""
    READONLY = "readonly"
    """This server is not, or no longer, the master: resolve it again and reconnect."""
    FULL = "full"
    """Redis is at maxmemory."""
    DISK = "disk"
    """Redis cannot persist (MISCONF) or has too few replicas (NOREPLICAS): writes are refused for now."""
    DENIED = "denied"
    """Wrong password, or the ACL forbids it: a person has to act."""
    TLS = "tls"
    """No TLS connection that can be trusted: a person has to act."""
    WRONGTYPE = "wrongtype"
    """A key of ours holds something else: a person has to act."""
    OTHER = "other"
    """Anything else; most likely a defect."""


class StoreError(JobqdError):
    """A Redis command failed; `fault` says how to react, the message carries Redis's own words."""

    enqueued: tuple[str, ...] = ()
    """After an enqueue of many jobs: the ids that Redis has acknowledged."""
    in_doubt: tuple[str, ...] = ()
    """After an enqueue: ids of which it is not known whether Redis has them. Sending the same ids again is safe."""

    def __init__(self, fault: StoreFault, message: str) -> None:
        self.fault = fault
        super().__init__(message)

    @property
    def transient(self) -> bool:
        """Whether waiting can help."""
        return self.fault not in (StoreFault.WRONGTYPE, StoreFault.OTHER)


class LeaseLost(JobqdError):  # noqa: N818 - says what happened
    """Raised inside a handler: this run no longer owns its job, so nothing it writes is accepted."""


class Stopped(JobqdError):  # noqa: N818 - says what happened
    """Raised inside a `def` handler that reports progress or saves a checkpoint after its run was ended."""


class ProgramError(JobqdError):
    """An external program could not be started or ended with an error."""

    def __init__(self, message: str, *, status: int | None = None, stderr: str = "") -> None:
        self.status, self.stderr = status, stderr
        super().__init__(message)


class Retry(Exception):  # noqa: N818 - a verb, read as `raise Retry(...)`
    """Raise in a handler: count this attempt as failed and try again, after `delay` if given.

    `delay` is in seconds or a duration such as "30s"; without it the job's backoff decides. A subclass may set it in
    its class.
    """

    # Here too for a subclass whose `__init__` does not call this one.
    reason: str = "retry requested"
    delay: float | str | None = None

    def __init__(self, reason: str = "retry requested", *, delay: float | str | None = None) -> None:
        self.reason = reason
        if delay is not None:
            self.delay = parse_duration(delay)
        super().__init__(reason)


class Fail(Exception):  # noqa: N818 - a verb, read as `raise Fail(...)`
    """Raise in a handler: trying again is useless, put the job straight into the dead letters."""

    reason: str = "failed for good"

    def __init__(self, reason: str = "failed for good") -> None:
        self.reason = reason
        super().__init__(reason)


class Snooze(Exception):  # noqa: N818 - a verb, read as `raise Snooze(...)`
    """Raise in a handler: run this job again after `delay` (at least 1 s); it is not an attempt."""

    reason: str = "snoozed"
    delay: float | str = 60.0
    """What it is in a subclass whose `__init__` does not call this one."""

    def __init__(self, delay: float | str, reason: str = "snoozed") -> None:
        self.delay = max(1.0, parse_duration(delay))
        self.reason = reason
        super().__init__(reason)
