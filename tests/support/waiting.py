"""Waiting for something observable, with a deadline; the only place of these tests that polls."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which what has not happened never will; only failing tests wait so long."""
_PAUSE = 0.005
_START = "import asyncio, pydantic, redis.asyncio"
_QUIET_START = 0.25
"""Seconds that an interpreter takes for it on a quiet machine of two cores."""


def eventually(probe: Callable[[], T], what: str = "", timeout: float = PATIENCE) -> T:
    """Return the first true value of `probe`; fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout:g} s: {what or probe!r}; last seen: {value!r}")
        time.sleep(_PAUSE)
    return value


def within(bound: float, measure: Callable[[], float], tries: int = 3) -> None:
    """Fail the test unless `measure` tells at most `bound` seconds of work, once in so many tries.

    The bound is that of a quiet machine. A try that takes longer may do so by as much as this machine is slower, right
    before or right after it, at starting an interpreter with what jobqd imports. Nothing of jobqd: where that became
    slow, the bound must tell.
    """
    told: list[str] = []
    slow = 1.0
    while len(told) < tries:
        before, seconds = slow, measure()
        if seconds <= bound:
            return
        slow = slowness()
        allowed = bound * max(before, slow)
        if seconds <= allowed:
            return
        told.append(f"{seconds:.2f} s where {allowed:.2f} s were allowed")
    raise AssertionError(f"took {', '.join(told)}; the bound of a quiet machine is {bound:g} s")


def slowness() -> float:
    """Return how many times as long as on a quiet machine an interpreter takes to start now; at least 1."""
    took: list[float] = []
    for _ in range(3):
        began = time.monotonic()
        # In a session of its own, as a test's daemon is: Linux shares the processors out by sessions first.
        subprocess.run([sys.executable, "-c", _START], check=True, start_new_session=True)
        took.append(time.monotonic() - began)
    return max(1.0, statistics.median(took) / _QUIET_START)


async def soon(probe: Callable[[], T], what: str = "", timeout: float = PATIENCE) -> T:
    """Do the same without holding the event loop; `probe` may be a plain function or return an awaitable."""
    deadline = time.monotonic() + timeout
    while True:
        value = probe()
        if asyncio.iscoroutine(value) or asyncio.isfuture(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout:g} s: {what or probe!r}; last seen: {value!r}")
        await asyncio.sleep(_PAUSE)
