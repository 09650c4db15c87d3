"""Logs: to the journal, to a person's terminal, or as JSON lines; never in the way of the work."""

from jobqd.logs.logger import Logger
from jobqd.logs.sampler import RunLog
from jobqd.logs.system import LOG_FORMATS, LogSystem, configure

__all__ = ["LOG_FORMATS", "LogSystem", "Logger", "RunLog", "configure"]
