"""Job ids: UUIDs of version 7, which sort by the time they were made and cannot be guessed."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable

_COUNTER_BITS = 12
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1


class Ids:
    """Makes UUIDv7 (RFC 9562, section 5.7), each greater than the one before it; for any number of threads.

    The 12 bits after the milliseconds are a counter (section 6.2, method 1), so that even ids of one
    millisecond keep their order; the last 62 bits are random and differ also in a forked child.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._millisecond = 0
        self._counter = 0

    def next(self) -> str:
        """Return a new id, as 36 characters."""
        noise = int.from_bytes(self._random(10), "big")
        if self._pid != os.getpid():
            # The parent's lock may have been held at the moment of the fork.
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            millisecond, counter = self._tick(noise >> 64)
        value = (millisecond & ((1 << 48) - 1)) << 80
        value |= 7 << 76 | counter << 64
        value |= 2 << 62 | noise & ((1 << 62) - 1)
        return str(uuid.UUID(int=value))

    def _tick(self, noise: int) -> tuple[int, int]:
        now = self._clock() // 1_000_000
        if now > self._millisecond:
            # Starting in the lower half leaves room to count up.
            self._millisecond, self._counter = now, noise & (_COUNTER_MAX >> 1)
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            self._millisecond, self._counter = self._millisecond + 1, 0
        return self._millisecond, self._counter
