"""What applications and libraries log with the standard library, on its way to the daemon's own sink."""

from __future__ import annotations

import logging

from structlog.contextvars import get_contextvars

from jobqd.logs.output import Output
from jobqd.logs.rate import Rate
from jobqd.logs.record import Caller, Record, format_exception
from jobqd.logs.text import shown
from jobqd.texts import repr_of

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
RATED = frozenset({"asyncio", "concurrent"})
"""Loggers that tell of each task or thread whose exception nobody asked for: any number of jobs may leave some."""
RATED_PER_SECOND = 20


class LibraryHandler(logging.Handler):
    """Hands standard records on, with the logger's name, what `extra` added, and the context's fields."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.NOTSET)
        self._output = output
        self.rate = Rate(output.clock, RATED_PER_SECOND)
        """What keeps RATED to so many lines a second."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; never raises."""
        if record.levelno < self._output.level:
            return
        if record.name.partition(".")[0] in RATED and not self.rate.admit():
            return
        try:
            self._output.write(self._converted(record))
        except BaseException:  # noqa: BLE001 - a log call must not fail the work it tells of
            self._output.count_failure()

    def _converted(self, record: logging.LogRecord) -> Record:
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        fields = {**get_contextvars(), "logger": record.name, **extra}
        if record.stack_info:
            fields["stack"] = record.stack_info
        caller = Caller(record.pathname, record.lineno, record.funcName or "")
        exception = format_exception(record.exc_info)
        return Record(record.created, record.levelno, _message(record), fields, exception, caller)


def _message(record: logging.LogRecord) -> str:
    try:
        return shown(record.getMessage())
    except BaseException:  # noqa: BLE001 - the arguments' own code may raise anything
        return f"{shown(record.msg)} {repr_of(record.args)}"


def library_level(level: int) -> int:
    """Return the level of the root logger: warnings and worse of libraries, everything while we debug.

    An application that wants its own `info` lines sets the level of its own logger.
    """
    return logging.DEBUG if level <= logging.DEBUG else logging.WARNING


class LibraryRoute:
    """The root logger's state while the daemon owns it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._handler = LibraryHandler(output)
        root = logging.getLogger()
        self._former_level = root.level
        root.addHandler(self._handler)
        # Without this the interpreter writes warnings to stderr itself, and may block on it.
        logging.captureWarnings(True)
        self.follow()

    def take_left_out(self) -> int:
        """Return how many lines of RATED were left out since the last call."""
        return self._handler.rate.take_left_out()

    def follow(self) -> None:
        """Take over the output's level."""
        logging.getLogger().setLevel(library_level(self._output.level))

    def close(self) -> None:
        """Put the root logger back as it was."""
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._former_level)
        logging.captureWarnings(False)
