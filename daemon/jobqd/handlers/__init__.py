"""What people who write handlers import, and how the daemon binds a job to its handler."""

from jobqd.handlers.handler import Handler, JobArgs
from jobqd.handlers.loading import explained, load_handlers
from jobqd.handlers.options import HandlerOptions
from jobqd.handlers.registry import Around, DeadHook, DeadLetter, Handlers, Lifespan
from jobqd.handlers.results import ResultError, encode_result

__all__ = [
    "Around",
    "DeadHook",
    "DeadLetter",
    "Handler",
    "HandlerOptions",
    "Handlers",
    "JobArgs",
    "Lifespan",
    "ResultError",
    "encode_result",
    "explained",
    "load_handlers",
]
