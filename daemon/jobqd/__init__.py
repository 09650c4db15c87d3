"""jobqd: a job queue on the Redis you already run. Handlers for the daemon, clients for producers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqd.client import JobHandle as JobHandle
    from jobqd.client import JobInfo as JobInfo
    from jobqd.client import JobSpec as JobSpec
    from jobqd.client import Progress as Progress
    from jobqd.client import Queue as Queue
    from jobqd.client import SyncJobHandle as SyncJobHandle
    from jobqd.client import SyncQueue as SyncQueue
    from jobqd.errors import ArgumentError as ArgumentError
    from jobqd.errors import ConfigError as ConfigError
    from jobqd.errors import EnqueueRefused as EnqueueRefused
    from jobqd.errors import Fail as Fail
    from jobqd.errors import JobCancelled as JobCancelled
    from jobqd.errors import JobFailed as JobFailed
    from jobqd.errors import JobNotFound as JobNotFound
    from jobqd.errors import JobqdError as JobqdError
    from jobqd.errors import LeaseLost as LeaseLost
    from jobqd.errors import PayloadError as PayloadError
    from jobqd.errors import ProgramError as ProgramError
    from jobqd.errors import ResultTimeout as ResultTimeout
    from jobqd.errors import Retry as Retry
    from jobqd.errors import Snooze as Snooze
    from jobqd.errors import Stopped as Stopped
    from jobqd.errors import StoreError as StoreError
    from jobqd.errors import StoreFault as StoreFault
    from jobqd.handlers import DeadLetter as DeadLetter
    from jobqd.handlers import Handlers as Handlers
    from jobqd.job import Job as Job
    from jobqd.job import SyncJob as SyncJob

__version__ = "0.1.0"

_HOMES = {
    "jobqd.client": ("JobHandle", "JobInfo", "JobSpec", "Progress", "Queue", "SyncJobHandle", "SyncQueue"),
    "jobqd.errors": (
        "ArgumentError", "ConfigError", "EnqueueRefused", "Fail", "JobCancelled", "JobFailed", "JobNotFound",
        "JobqdError", "LeaseLost", "PayloadError", "ProgramError", "ResultTimeout", "Retry", "Snooze",
        "Stopped", "StoreError", "StoreFault",
    ),
    "jobqd.handlers": ("DeadLetter", "Handlers"),
    "jobqd.job": ("Job", "SyncJob"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: a producer does not load the daemon's parts, nor it the clients."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for names in _HOMES.values() for name in names)})
