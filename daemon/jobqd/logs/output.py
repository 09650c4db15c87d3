"""Where every record of the process goes: one level, one sink, a count of what went wrong."""

from __future__ import annotations

from typing import Protocol

from jobqd.clock import Clock
from jobqd.logs.record import Record
from jobqd.texts import class_name


class Sink(Protocol):
    """A place for records."""

    @property
    def wants_caller(self) -> bool:
        """Whether records should say where in the source they were written."""

    @property
    def dropped(self) -> int:
        """Records lost so far."""

    def write(self, record: Record) -> None:
        """Take a record without waiting."""

    def close(self) -> None:
        """Write what waits, for a bounded time, then let go."""


class Output:
    """The end that all loggers share, so that a new level holds for those already bound."""

    __slots__ = ("_failures", "clock", "level", "sink", "wants_caller")

    def __init__(self, sink: Sink, level: int, clock: Clock) -> None:
        self.sink = sink
        self.level = level
        """Records below it are not made."""
        self.clock = clock
        self.wants_caller = sink.wants_caller
        self._failures = 0

    @property
    def dropped(self) -> int:
        """Records lost so far: not taken by the sink, or failed while they were made."""
        return self.sink.dropped + self._failures

    def write(self, record: Record) -> None:
        """Hand a record to the sink; should it fail on a value, the record goes without its fields."""
        try:
            self.sink.write(record)
        except BaseException as error:  # noqa: BLE001 - values are the application's, and may raise anything
            fields = {"log_error": f"the fields could not be written: {class_name(error)}"}
            self.sink.write(Record(record.time, record.level, record.event, fields, record.exception))

    def count_failure(self) -> None:
        """Count a record that could not be made."""
        self._failures += 1
