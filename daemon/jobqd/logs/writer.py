"""Writing lines to a stream that may stall, without ever making the event loop wait."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUEUE_LIMIT = 8 * 2**20
"""Bytes that may wait for a stalled reader; what comes beyond is dropped."""

_BATCH = 64 * 1024


class LineWriter:
    """A queue of bounded size and one thread that writes it to `write`.

    A terminal that is stopped with Ctrl-S, or a pipe whose reader sleeps, blocks the thread and nobody else.
    What does not fit, or cannot be written, is dropped and counted; `lost` renders the line that says how
    many, once writing works again.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        lost: Callable[[int], bytes],
        release: Callable[[], None],
        *,
        limit: int = QUEUE_LIMIT,
    ) -> None:
        self._write = write
        self._lost = lost
        self._release = release
        self._limit = limit
        # A condition's own lock is reentrant: a finalizer run by the garbage collector inside `put` may log.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._unreported = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jobqd-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._dropped

    def put(self, line: bytes) -> None:
        """Queue a line, or drop it if too much waits."""
        with self._changed:
            if self._closing or self._waiting + len(line) > self._limit:
                self._count(1)
                return
            self._lines.append(line)
            self._waiting += len(line)
            self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds, and drop the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        with self._changed:
            self._count(len(self._lines))
            self._lines.clear()

    def _run(self) -> None:
        while batch := self._take():
            unreported = self._unreported
            report = self._lost(unreported) if unreported else b""
            try:
                self._write(b"".join((*batch, report)))
            except (OSError, ValueError):
                with self._changed:
                    self._count(len(batch))
            else:
                with self._changed:
                    self._unreported -= unreported
        self._release()

    def _take(self) -> list[bytes]:
        """Wait for lines and return some of them; none once the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closing)
            batch: list[bytes] = []
            size = 0
            while self._lines and size < _BATCH:
                batch.append(self._lines.popleft())
                size += len(batch[-1])
            self._waiting -= size
            return batch

    def _count(self, lines: int) -> None:
        self._dropped += lines
        self._unreported += lines


def descriptor_write(fd: int) -> Callable[[bytes], None]:
    """Return a function that writes all of its bytes to `fd`, however long it takes; it raises OSError."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                # Whoever shares this open file may have made it non-blocking.
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                poll.poll()

    return write


def text_write(stream: TextIO) -> Callable[[bytes], None]:
    """Return a function that writes to a stream without a descriptor; it raises ValueError if closed."""

    def write(data: bytes) -> None:
        stream.write(data.decode("utf-8"))
        stream.flush()

    return write
