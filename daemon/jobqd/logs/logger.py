"""The logger that the daemon and its handlers call: structlog's, filtered by level, that never raises."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from jobqd.logs.output import Output
from jobqd.logs.record import LEVEL_NAMES, Record, find_caller, format_exception
from jobqd.logs.text import cut, shown
from jobqd.texts import repr_of

MESSAGE_LIMIT = 4 * 2**20
"""Longest event text, in characters: a job's own line of a megabyte survives."""
SUBJECT_LIMIT = 300
"""Longest id or type of a job that is shown whole: our clients take 256 characters, a raw producer any number."""


class Logger(structlog.BoundLoggerBase):
    """A bound logger: `log.info("job.completed", job_id=..., duration=4.2)`.

    Event names with a dot are stable and known to the sentences; any other text is a message of its own, with
    `%` arguments if it has some. A disabled level costs one comparison. No call raises, whatever its values
    do.
    """

    _logger: Output

    def debug(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log for those who look for a cause."""
        if self._logger.level <= logging.DEBUG:
            self._emit(logging.DEBUG, event, args, fields)

    def info(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log what is as it should be."""
        if self._logger.level <= logging.INFO:
            self._emit(logging.INFO, event, args, fields)

    def warning(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log what a person should look at some time."""
        if self._logger.level <= logging.WARNING:
            self._emit(logging.WARNING, event, args, fields)

    def error(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log what failed."""
        if self._logger.level <= logging.ERROR:
            self._emit(logging.ERROR, event, args, fields)

    def exception(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log what failed, with the exception that is being handled."""
        if self._logger.level <= logging.ERROR:
            self._emit(logging.ERROR, event, args, {"exc_info": True, **fields})

    def critical(self, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log what ends the daemon."""
        if self._logger.level <= logging.CRITICAL:
            self._emit(logging.CRITICAL, event, args, fields)

    def log(self, level: int, event: Any = None, /, *args: Any, **fields: Any) -> None:
        """Log at a level given as a number."""
        if self._logger.level <= level:
            self._emit(level, event, args, fields)

    warn = warning
    fatal = critical

    def is_enabled_for(self, level: int) -> bool:
        """Whether a record of this level would be written."""
        return self._logger.level <= level

    def _emit(self, level: int, event: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        try:
            self._logger.write(self._record(level, event, args, fields))
        except structlog.DropEvent:
            return
        except BaseException:  # noqa: BLE001 - a log call must not fail the work it tells of
            self._logger.count_failure()

    def _record(self, level: int, event: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> Record:
        named: dict[str, Any] = {**self._context, **fields}
        if event is None:
            event = named.pop("event", "")
        elif "event" in named:
            named["event_"] = named.pop("event")
        named["event"] = _interpolated(event, args) if args else event
        for processor in self._processors:
            named = processor(self._logger, LEVEL_NAMES.get(level, "info"), named)  # type: ignore[assignment]
        text = shown(named.pop("event", ""), MESSAGE_LIMIT)
        for name in ("job_id", "job_type"):
            if len(value := named.get(name) or "") > SUBJECT_LIMIT and type(value) is str:
                named[name] = cut(value, SUBJECT_LIMIT)
        exception = format_exception(named.pop("exc_info", None)) if "exc_info" in named else ""
        if not exception and isinstance(named.get("traceback"), str):
            exception = named.pop("traceback").rstrip()
        caller = find_caller() if self._logger.wants_caller else None
        return Record(self._logger.clock.time(), level, text, named, exception, caller)


def _interpolated(event: Any, args: tuple[Any, ...]) -> str:
    """Return the text with its `%` arguments in place; with wrong arguments, the text and the arguments."""
    try:
        return str(event % (args[0] if len(args) == 1 and isinstance(args[0], dict) else args))
    except BaseException:  # noqa: BLE001 - the arguments' own code may raise anything
        return f"{shown(event)} {' '.join(map(repr_of, args))}"
