"""The countdown of a stop: how long systemd is asked to wait, and no longer."""

from __future__ import annotations

import asyncio

from jobqd.app.shutdown import Countdown
from tests.support.clock import ManualClock
from tests.support.waiting import soon


class Told:
    def __init__(self) -> None:
        self.granted: list[float] = []
        self.lines: list[str] = []

    def extend_timeout(self, seconds: float) -> None:
        self.granted.append(seconds)

    def status(self, text: str) -> None:
        self.lines.append(text)


async def test_it_asks_step_by_step_until_the_stop_must_be_over() -> None:
    clock, told = ManualClock(), Told()
    countdown = Countdown(told, clock, lambda: 3)  # type: ignore[arg-type]
    countdown.allow(9.0)
    loop = asyncio.create_task(countdown.run())
    for step in range(1, 8):
        await soon(lambda step=step: len(clock.slept) == step)  # type: ignore[misc]
        clock.advance(Countdown.EVERY)
    await soon(lambda: len(clock.slept) == 8)
    # At 0, 2, 4, 6 and 8 s; what goes on after 13 s (the process has 4 s to leave) has gone wrong, and systemd ends it.
    assert told.granted == [10.0, 10.0, 9.0, 7.0, 5.0]
    assert told.lines == [f"stopping: 3 running, {left}s left" for left in (9, 7, 5, 3, 1)]
    countdown.allow(1.0)
    clock.advance(Countdown.EVERY)
    await soon(lambda: len(clock.slept) == 9)
    assert len(told.granted) == 5
    loop.cancel()


def test_a_later_limit_counts_and_an_earlier_one_does_not() -> None:
    clock = ManualClock()
    countdown = Countdown(Told(), clock, lambda: 0)  # type: ignore[arg-type]
    countdown.allow(60.0)
    countdown.allow(10.0)
    assert countdown.until == clock.now + 60
