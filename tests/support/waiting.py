"""Waiting for something observable, with a deadline; the only place of these tests that polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
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
