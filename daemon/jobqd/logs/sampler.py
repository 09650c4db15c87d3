"""The line that each run ends with, kept to a rate that a log can bear."""

from __future__ import annotations

import logging
from typing import Any

from jobqd.clock import Clock
from jobqd.logs.logger import Logger


class RunLog:
    """Info lines of ended runs, at most `limit_per_second`; what is left out is counted and told each second.

    Callers ask before they build the fields::

        if runs.admit():
            runs.ended("job.completed", job_id=..., duration=...)

    Warnings, errors and what jobs log themselves do not come through here. For the event loop's thread only.
    """

    __slots__ = ("_clock", "_left", "_limit", "_logger", "_suppressed", "_window_end")

    def __init__(self, logger: Logger, clock: Clock, limit_per_second: int = 200) -> None:
        self._logger = logger
        self._clock = clock
        self._limit = limit_per_second
        self._left = limit_per_second
        self._suppressed = 0
        self._window_end = clock.monotonic() + 1.0

    def admit(self) -> bool:
        """Whether to write the line of the run that ended now; true uses up one line of this second."""
        if self._clock.monotonic() >= self._window_end:
            self.tick()
        if self._left > 0:
            if not self._logger.is_enabled_for(logging.INFO):
                return False
            self._left -= 1
            return True
        self._suppressed += 1
        return False

    def ended(self, event: str, **fields: Any) -> None:
        """Write the line of a run, such as "job.completed"."""
        self._logger.info(event, **fields)

    def tick(self) -> None:
        """Tell what was left out, if the second is over; call it each second: runs may cease."""
        now = self._clock.monotonic()
        if now < self._window_end:
            return
        self._window_end = now + 1.0
        self._left = self._limit
        self.flush()

    def flush(self) -> None:
        """Tell what was left out so far: to be called before the log is closed."""
        if self._suppressed:
            count, self._suppressed = self._suppressed, 0
            self._logger.info("job.lines_suppressed", count=count)
