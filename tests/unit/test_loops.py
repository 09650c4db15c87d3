"""Loops: one that crashes ends everything, one that hangs does not hold up a stop."""

from __future__ import annotations

import asyncio

import pytest

from jobqd.app.loops import Crash, Loops
from tests.support.log import RecordingLog


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_crash_is_logged_with_its_part_and_ends_the_work_and_every_loop() -> None:
    log = RecordingLog()
    loops = Loops(log)
    news = asyncio.Event()

    async def crashes() -> None:
        await news.wait()
        raise LookupError("no such thing")

    other = loops.start("walk", forever())
    loops.start("settle", crashes())
    cleaned = []

    async def life() -> None:
        news.set()
        try:
            await forever()
        finally:
            cleaned.append(True)

    with pytest.raises(Crash) as caught:
        await loops.guard(life())
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.part == "settle"
    assert cleaned == [True]
    assert other.cancelled()
    (told,) = log.of("daemon.crashed")
    assert told["part"] == "settle"
    assert isinstance(told["exc_info"], LookupError)


async def test_work_that_is_done_ends_the_guard_with_its_result_or_its_error() -> None:
    loops = Loops(RecordingLog())
    loops.start("vouch", forever(), endless=True)

    async def fails() -> None:
        raise ValueError("as it says")

    assert await loops.guard(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="as it says"):
        await loops.guard(fails())
    await loops.close()


async def test_loops_that_do_not_end_are_not_waited_for() -> None:
    loops = Loops(RecordingLog())
    endless = loops.start("vouch", forever(), endless=True)
    assert await loops.end(0) is True, "an endless one does not count"
    hangs = loops.start("walk", forever())
    assert await loops.end(0) is False
    hangs.cancel()
    await loops.close()
    assert endless.cancelled()


@pytest.mark.parametrize("endless", [True, False])
async def test_a_loop_that_ends_before_the_stop_is_a_crash_however_it_ended(endless: bool) -> None:
    for cancel in (True, False):
        log = RecordingLog()
        loops = Loops(log)
        task = loops.start("claim", forever() if cancel else asyncio.sleep(0), endless=endless)
        if cancel:
            task.cancel()
        with pytest.raises(Crash):
            await loops.guard(forever())
        assert log.of("daemon.crashed")[0]["part"] == "claim"
    loops = Loops(log)
    loops.start("claim", asyncio.sleep(0), endless=endless)
    loops.expect_ends()
    assert await loops.guard(asyncio.sleep(0.01, "done")) == "done"
