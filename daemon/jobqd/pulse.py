"""The pulse of a part: whether it is in the middle of a turn, and since when. The watchdog is told by it."""

from __future__ import annotations

from types import TracebackType

from jobqd.clock import Clock


class Pulse:
    """A context manager around each turn of one part. A part that waits for something to do is in none.

    Written by its part, in whatever thread, and read by who vouches for the daemon; not to be nested.
    """

    __slots__ = ("_clock", "name", "since")

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self.since: float | None = None
        """Monotonic time at which the turn under way began; None between two."""

    def __enter__(self) -> None:
        self.since = self._clock.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.since = None

    def lasts(self, now: float) -> float:
        """Return for how many seconds the turn under way has lasted, 0 between two."""
        since = self.since
        return 0.0 if since is None else now - since
