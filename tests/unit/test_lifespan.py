"""The lifespan: its end is bounded, and its errors are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jobqd.app.lifespan import Lifespan
from jobqd.errors import StartError
from tests.support.log import RecordingLog


async def test_it_yields_the_state_and_is_left_once() -> None:
    left = []

    @asynccontextmanager
    async def application() -> AsyncIterator[str]:
        yield "pool"
        left.append(True)

    lifespan = Lifespan(application, RecordingLog())
    assert await lifespan.enter() == "pool"
    assert await lifespan.leave(1.0)
    assert await lifespan.leave(1.0)
    assert left == [True]


async def test_without_one_there_is_nothing_to_do() -> None:
    lifespan = Lifespan(None, RecordingLog())
    assert await lifespan.enter() is None
    assert await lifespan.leave(1.0)


async def test_one_that_cannot_be_entered_says_why_and_is_not_left() -> None:
    @asynccontextmanager
    async def application() -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    lifespan = Lifespan(application, RecordingLog())
    with pytest.raises(StartError, match="the lifespan of the handlers raised OSError: no database"):
        await lifespan.enter()
    assert await lifespan.leave(1.0)


async def test_one_that_does_not_end_or_fails_is_told_and_passed_over() -> None:
    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        yield
        raise LookupError("the pool would not close")

    @asynccontextmanager
    async def cancels() -> AsyncIterator[None]:
        refresher = asyncio.create_task(asyncio.Event().wait())
        yield
        refresher.cancel()
        await refresher

    for application, problem in (
        (cancels, "CancelledError: "),
        (hangs, "it took longer than 0.01 s"),
        (fails, "LookupError: the pool would not close"),
    ):
        log = RecordingLog()
        lifespan = Lifespan(application, log)
        await lifespan.enter()
        assert not await lifespan.leave(0.01)
        assert log.of("lifespan.failed")[0]["problem"] == problem


async def test_a_cancel_that_escapes_at_the_start_is_a_failure_and_ours_is_not() -> None:
    @asynccontextmanager
    async def application() -> AsyncIterator[None]:
        waits = asyncio.create_task(asyncio.Event().wait())
        if cancels:
            waits.cancel()
        await waits
        yield

    cancels = True
    with pytest.raises(StartError, match="the lifespan of the handlers raised CancelledError"):
        await Lifespan(application, RecordingLog()).enter()
    cancels = False
    entering = asyncio.create_task(Lifespan(application, RecordingLog()).enter())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
