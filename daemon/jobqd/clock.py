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


@dataclass(frozen=True, slots=True)
class World:
    """What every part of the daemon takes from outside, so that a test can give its own."""

    clock: Clock
    random: Random
    log: Any
    """A structlog logger."""
    end: Callable[[], None] = lambda: os._exit(EX_SOFTWARE)
    """Ends the process at once, from any thread."""
