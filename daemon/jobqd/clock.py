"""The world outside as something that is passed in: time, chance, and the log."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from jobqd.errors import EX_SOFTWARE

Random = Callable[[], float]
"""Gives a number in [0, 1)."""


class Clock(Protocol):
    """What the daemon asks of time. Times to store come from Redis, never from here."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps: for measuring."""

    def time(self) -> float:
        """Unix seconds: for showing to people only."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment, steady."""
        return time.monotonic()

    def time(self) -> float:
        """Unix seconds."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await asyncio.sleep(seconds)


class Log(Protocol):
    """What the daemon asks of a log: stable event names, and fields. Structlog's loggers are such."""

    def debug(self, event: str, /, **fields: Any) -> Any:
        """Log for those who look for a cause."""

    def info(self, event: str, /, **fields: Any) -> Any:
        """Log what is as it should be."""

    def warning(self, event: str, /, **fields: Any) -> Any:
        """Log what a person should look at some time."""

    def error(self, event: str, /, **fields: Any) -> Any:
        """Log what failed."""

    def exception(self, event: str, /, **fields: Any) -> Any:
        """Log what failed, with the exception that is being handled."""

    def critical(self, event: str, /, **fields: Any) -> Any:
        """Log what ends the daemon."""

    def bind(self, **fields: Any) -> Any:
        """Return a logger that adds these fields to each line."""

    def is_enabled_for(self, level: int, /) -> bool:
        """Whether a record of this level would be written."""


@dataclass(frozen=True, slots=True)
class World:
    """What every part of the daemon takes from outside, so that a test can give its own."""

    clock: Clock
    random: Random
    log: Log
    end: Callable[[], None] = lambda: os._exit(EX_SOFTWARE)
    """Ends the process at once, from any thread."""
