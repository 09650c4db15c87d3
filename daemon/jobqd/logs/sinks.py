"""The two places that records go to: a stream, and the journal."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Protocol, TextIO

from jobqd.clock import Clock
from jobqd.journal import Journal
from jobqd.logs.entries import JournalFormat
from jobqd.logs.record import Record
from jobqd.logs.writer import LineWriter, descriptor_write, text_write


class Format(Protocol):
    """How a record looks in a stream."""

    def render(self, record: Record) -> bytes:
        """Return the record's lines."""


class StreamSink:
    """Writes rendered records to a stream through a `LineWriter`."""

    wants_caller = False

    def __init__(self, stream: TextIO | None, form: Format, clock: Clock) -> None:
        self._form = form
        self._clock = clock
        # A copy: if the application closes stderr, its number may next be a socket of Redis.
        self._fd = _copy_of(stream)
        if self._fd is not None:
            write = descriptor_write(self._fd)
        else:
            write = _discard if stream is None else text_write(stream)
        self._writer = LineWriter(write, self._lost, self._release)

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._writer.dropped

    def write(self, record: Record) -> None:
        """Render and queue a record."""
        self._writer.put(self._form.render(record))

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        self._writer.close()

    def _release(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)

    def _lost(self, count: int) -> bytes:
        return self._form.render(Record(self._clock.time(), logging.WARNING, "log.dropped", {"count": count}))


class JournalSink:
    """Sends records to journald."""

    wants_caller = True

    def __init__(self, journal: Journal, form: JournalFormat) -> None:
        self._journal = journal
        self._form = form

    @property
    def dropped(self) -> int:
        """Entries lost so far."""
        return self._journal.dropped

    def write(self, record: Record) -> None:
        """Send a record."""
        self._journal.send(self._form.render(record))

    def close(self) -> None:
        """Close the socket; nothing waits in it."""
        self._journal.close()


def _copy_of(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None


def _discard(_data: bytes) -> None:
    raise OSError("there is no stderr")
