"""How far the event loop lags behind, asked from another thread."""

from __future__ import annotations

import asyncio

from jobqd.clock import Clock
from jobqd.metrics.tally import Histogram

LAG_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class LoopLag:
    """Asks the loop to answer and measures how long that takes; `ask` and `owed` are for another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._asked: float | None = None
        self.answers = Histogram(LAG_BOUNDS)
        """How long each answer took, in seconds."""

    def ask(self) -> None:
        """Ask for an answer, unless one is still owed."""
        if self._asked is not None:
            return
        self._asked = self._clock.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            # The loop is closed: the daemon has ended, and its last answer stays owed.
            return

    def owed(self) -> float:
        """Return for how many seconds the loop has owed an answer; 0 if it owes none."""
        asked = self._asked
        return 0.0 if asked is None else self._clock.monotonic() - asked

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self.answers.observe(self._clock.monotonic() - asked)
