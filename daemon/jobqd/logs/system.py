"""Setting the log up: from the settings to one sink for the daemon, its jobs and their libraries."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.contextvars import merge_contextvars

from jobqd.clock import Clock, SystemClock
from jobqd.errors import ConfigError
from jobqd.journal import JOURNAL_SOCKET, Journal, stderr_is_journal
from jobqd.logs.console import ConsoleFormat
from jobqd.logs.entries import JournalFormat
from jobqd.logs.jsonlines import JsonFormat
from jobqd.logs.library import LibraryRoute
from jobqd.logs.logger import Logger
from jobqd.logs.output import Output, Sink
from jobqd.logs.record import level_number
from jobqd.logs.sinks import JournalSink, StreamSink

LOG_FORMATS = ("auto", "console", "json", "journald")
"""What `log_format` may be."""


class LogSystem:
    """The log of this process, from `configure` to `close`."""

    def __init__(self, sink: Sink, level: int, clock: Clock) -> None:
        self._output = Output(sink, level, clock)
        self._closed = False
        processors: list[Any] = [merge_contextvars]
        self.logger = Logger(self._output, processors, {})
        """Bind to it, or log with it; every logger of this system follows its level."""
        self._library = LibraryRoute(self._output)
        self._owns_structlog = not structlog.is_configured()
        if self._owns_structlog:
            # For the application's structlog.get_logger(), which would print to stdout, and may block there.
            structlog.configure(processors=processors, wrapper_class=Logger, logger_factory=lambda *_: self._output)
        atexit.register(self.close)

    @property
    def dropped(self) -> int:
        """Records lost so far: a full queue, a reader that is gone, a journal that did not take them."""
        return self._output.dropped

    def take_left_out(self) -> int:
        """Return how many lines of libraries were left out since the last call: some may log without end."""
        return self._library.take_left_out()

    def set_level(self, level: str) -> None:
        """Write records from this level up, by bound loggers too. Raises ValueError for an unknown name."""
        self._output.level = level_number(level)
        self._library.follow()

    def close(self) -> None:
        """Write what waits, for at most two seconds, and let go of standard logging; drop later records."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._library.close()
        if self._owns_structlog:
            structlog.reset_defaults()
        self._output.sink.close()


def configure(
    log_format: str,
    log_level: str,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str],
    journal_path: Path | str = JOURNAL_SOCKET,
    clock: Clock | None = None,
) -> LogSystem:
    """Set up the log of this process and return it; `stream` is sys.stderr unless given.

    Raises ConfigError for an unknown format or level, and for `journald` where no journal listens.
    """
    target = sys.stderr if stream is None else stream
    known_clock = clock or SystemClock()
    try:
        level = level_number(log_level)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    chosen = _chosen(log_format, target, environ, Path(journal_path))
    if chosen == "journald":
        return LogSystem(JournalSink(Journal(journal_path), JournalFormat()), level, known_clock)
    if chosen == "console":
        form = ConsoleFormat(colour=_colour(target, environ), symbols=_symbols(target))
        return LogSystem(StreamSink(target, form, known_clock), level, known_clock)
    return LogSystem(StreamSink(target, JsonFormat(), known_clock), level, known_clock)


def _chosen(log_format: str, stream: TextIO | None, environ: Mapping[str, str], journal: Path) -> str:
    if log_format not in LOG_FORMATS:
        raise ConfigError(f"log_format is {log_format!r}: write one of {', '.join(LOG_FORMATS)}")
    if log_format == "journald" and not journal.exists():
        raise ConfigError(
            f"log_format is 'journald', but there is no journal socket at {journal}: "
            "run the daemon under systemd, make the socket visible to it, or set log_format to auto, "
            "json or console"
        )
    if log_format != "auto":
        return log_format
    descriptor = _descriptor(stream)
    if descriptor is not None and stderr_is_journal(environ, descriptor) and journal.exists():
        return "journald"
    return "console" if _is_terminal(stream) else "json"


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_terminal(stream: TextIO | None) -> bool:
    descriptor = _descriptor(stream)
    return descriptor is not None and os.isatty(descriptor)


def _colour(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether to colour: no-color.org asks to honour NO_COLOR with any value but an empty one."""
    return _is_terminal(stream) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _symbols(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
