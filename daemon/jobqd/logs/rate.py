"""So many lines a second of one kind, and a count of the others."""

from __future__ import annotations

from jobqd.clock import Clock


class Rate:
    """Admits lines; not for several threads at once."""

    __slots__ = ("_clock", "_left", "_left_out", "_limit", "_window_end")

    def __init__(self, clock: Clock, limit_per_second: int) -> None:
        self._clock = clock
        self._limit = self._left = limit_per_second
        self._left_out = 0
        self._window_end = clock.monotonic() + 1.0

    def admit(self) -> bool:
        """Whether a line may be written; true uses up one line of this second."""
        now = self._clock.monotonic()
        if now >= self._window_end:
            self._window_end, self._left = now + 1.0, self._limit
        if self._left > 0:
            self._left -= 1
            return True
        self._left_out += 1
        return False

    def take_left_out(self) -> int:
        """Return how many were not admitted since the last call."""
        count, self._left_out = self._left_out, 0
        return count
