"""What is said of single jobs, kept to a rate that a log can bear."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from jobqd.clock import Clock, Log

SAMPLED = frozenset({
    "hook.failed", "hook.skipped", "job.broke", "job.cancelled", "job.dead", "job.dropped", "job.expired", "job.lost",
    "job.persisted", "job.recovered", "job.refused", "job.released", "job.restored", "job.retrying", "job.snoozed",
    "job.ttl", "job.unacknowledged", "loop.exit_refused",
})  # fmt: skip
"""Lines of which a broken producer or handler can cause any number; what they tell of jobs is in Redis too."""


class RunLog:
    """The log of the daemon's parts, in which lines about single jobs are kept to a rate.

    At most `limit_per_second` tell of completed runs and `trouble_per_second` of trouble with jobs (SAMPLED); what is
    left out is counted and told each second. Of completed runs, callers ask before they build the fields::

        if runs.admit():
            runs.ended("job.completed", job_id=..., duration=...)

    `also` gives the number of lines left out elsewhere since it was called last, to be told with ours.

    All else passes: what is said of the daemon, from any thread, and what jobs log themselves (see `bind`).
    """

    __slots__ = (
        "_also",
        "_clock",
        "_left",
        "_limit",
        "_logger",
        "_suppressed",
        "_trouble",
        "_trouble_left",
        "_window_end",
    )

    def __init__(
        self, logger: Log, clock: Clock, limit_per_second: int = 200, trouble_per_second: int = 100,
        *, also: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._also = also
        self._logger = logger
        self._clock = clock
        self._limit = limit_per_second
        self._left = limit_per_second
        self._trouble = trouble_per_second
        self._trouble_left = trouble_per_second
        self._suppressed = 0
        self._window_end = clock.monotonic() + 1.0

    @classmethod
    def over(cls, log: Log, clock: Clock) -> RunLog:
        """Return a log that is kept to a rate: this one, if it is that already."""
        return log if isinstance(log, cls) else cls(log, clock)

    def bind(self, **fields: Any) -> Any:
        """Return a logger with these fields, for a job's own lines: none of the application's is left out."""
        return self._logger.bind(**fields)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a record of this level would be written."""
        return self._logger.is_enabled_for(level)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Log for those who look for a cause."""
        self._logger.debug(event, **fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Log what is as it should be."""
        if self._admit_trouble(event):
            self._logger.info(event, **fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Log what a person should look at some time."""
        if self._admit_trouble(event):
            self._logger.warning(event, **fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Log what failed."""
        if self._admit_trouble(event):
            self._logger.error(event, **fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """Log what failed, with the exception that is being handled."""
        if self._admit_trouble(event):
            self._logger.exception(event, **fields)

    def critical(self, event: str, /, **fields: Any) -> None:
        """Log what ends the daemon."""
        self._logger.critical(event, **fields)

    def _admit_trouble(self, event: str) -> bool:
        if event not in SAMPLED:
            return True
        if self._clock.monotonic() >= self._window_end:
            self.tick()
        if self._trouble_left > 0:
            self._trouble_left -= 1
            return True
        self._suppressed += 1
        return False

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
        self._trouble_left = self._trouble
        self.flush()

    def flush(self) -> None:
        """Tell what was left out so far: to be called before the log is closed."""
        if count := self._suppressed + self._also():
            self._suppressed = 0
            self._logger.info("job.lines_suppressed", count=count)
