"""Waiting for something observable, with a deadline; the only place of these tests that polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which what has not happened never will; only failing tests wait so long."""
_PAUSE = 0.005


def eventually(probe: Callable[[], T], what: str = "", timeout: float = PATIENCE) -> T:
    """Return the first true value of `probe`; fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout:g} s: {what or probe!r}; last seen: {value!r}")
        time.sleep(_PAUSE)
    return value


def within(bound: float, measure: Callable[[], float], tries: int = 3) -> None:
    """Fail the test unless `measure` tells at most `bound` seconds, once in so many tries: a busy machine only adds."""
    told: list[float] = []
    while not told or (min(told) > bound and len(told) < tries):
        told.append(measure())
    assert min(told) <= bound, f"took {', '.join(f'{seconds:.2f}' for seconds in told)} s, the bound is {bound:g} s"


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
