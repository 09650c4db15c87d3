"""The loops: each duty at its own pace, an error is waited out, a stop is a flag."""

from __future__ import annotations

import asyncio

from jobqd.duties.outage import Outage
from jobqd.errors import StoreError, StoreFault
from jobqd.supervisor import Supervisor
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world
from tests.support.waiting import soon


class Duty:
    """Counts its passes; each waits for its gate, if it is shut."""

    def __init__(self, *delays: float | StoreError) -> None:
        self.passes = 0
        self.ended = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.news = asyncio.Event()
        self._delays = list(delays)

    async def wait(self) -> None:
        await self.news.wait()

    async def run_once(self) -> float:
        self.passes += 1
        await self.gate.wait()
        self.ended += 1
        delay = self._delays.pop(0) if len(self._delays) > 1 else self._delays[0]
        if isinstance(delay, StoreError):
            raise delay
        return delay


class Settling:
    """What the supervisor asks of a settler."""

    def __init__(self) -> None:
        self.waiting = 0
        self.stuck = False
        self.news = asyncio.Event()
        self.script: list[tuple[int, bool, float]] = []
        """What each pass leaves: (waiting, stuck, delay)."""
        self.passes = 0

    def __len__(self) -> int:
        return self.waiting

    async def wait(self) -> None:
        await self.news.wait()

    async def run_once(self) -> float:
        self.passes += 1
        self.waiting, self.stuck, delay = self.script.pop(0)
        if not self.waiting:
            self.news.clear()
        return delay


class Shift:
    def __init__(self, clock: ManualClock) -> None:
        self.log, self.settling, self.unstuck = RecordingLog(), Settling(), 0
        self.supervisor = Supervisor(
            self.settling,  # type: ignore[arg-type]
            Outage(world(clock, log=self.log)),
            clock,
            on_unstuck=self._on_unstuck,
        )

    def _on_unstuck(self) -> None:
        self.unstuck += 1


async def test_a_periodic_duty_comes_at_the_pace_it_asks_for() -> None:
    clock = ManualClock()
    shift, duty = Shift(clock), Duty(0.0, 0.0, 3.0)
    loop = asyncio.create_task(shift.supervisor.periodic("walk", duty))
    await soon(lambda: duty.passes == 3)
    await soon(lambda: clock.slept == [3.0])
    clock.advance(2.9)
    await asyncio.wait([loop], timeout=0)
    assert duty.passes == 3
    clock.advance(0.2)
    await soon(lambda: duty.passes == 4)
    shift.supervisor.stop()
    await loop


async def test_a_duty_can_be_hastened() -> None:
    clock = ManualClock()
    shift, duty = Shift(clock), Duty(3600.0)
    loop = asyncio.create_task(shift.supervisor.periodic("promote", duty))
    await soon(lambda: clock.slept)
    shift.supervisor.hasten("promote", 0.0)
    shift.supervisor.hasten("unknown", 0.0)
    await soon(lambda: duty.passes == 2)
    shift.supervisor.stop()
    await loop


async def test_a_redis_that_fails_is_waited_out() -> None:
    clock = ManualClock()
    down = StoreError(StoreFault.DOWN, "refused")
    shift, duty = Shift(clock), Duty(down, down, down, 3600.0)
    loop = asyncio.create_task(shift.supervisor.periodic("walk", duty))
    for passes in (1, 2, 3):
        await soon(lambda n=passes: len(clock.slept) == n)  # type: ignore[misc]
        clock.advance(10)
    await soon(lambda: duty.passes == 4)
    assert shift.log.events == ["redis.away", "redis.back"]
    assert 0 < clock.slept[0] < 0.01
    shift.supervisor.stop()
    await loop


async def test_a_stop_awaits_the_pass_under_way_and_makes_no_other() -> None:
    shift, duty = Shift(ManualClock()), Duty(0.0)
    duty.gate.clear()
    loop = asyncio.create_task(shift.supervisor.periodic("walk", duty))
    await soon(lambda: duty.passes == 1)
    shift.supervisor.stop()
    await asyncio.wait([loop], timeout=0.01)
    assert not loop.done()
    assert not loop.cancelling()
    duty.gate.set()
    await loop
    assert (duty.passes, duty.ended) == (1, 1)


async def test_a_duty_on_demand_waits_for_news_and_keeps_its_distance() -> None:
    clock = ManualClock()
    shift, duty = Shift(clock), Duty(0.1)
    loop = asyncio.create_task(shift.supervisor.on_demand("progress", duty))
    await asyncio.wait([loop], timeout=0)
    assert duty.passes == 0
    duty.news.set()
    await soon(lambda: duty.passes == 1)
    await asyncio.wait([loop], timeout=0)
    assert duty.passes == 1
    clock.advance(0.1)
    await soon(lambda: duty.passes == 2)
    shift.supervisor.stop()
    await loop


async def test_settling_follows_its_news_and_tells_when_it_is_unstuck() -> None:
    clock = ManualClock()
    shift = Shift(clock)
    shift.settling.script = [(1, True, 0.5), (1, True, 0.5), (0, False, 0.0)]
    loop = asyncio.create_task(shift.supervisor.settle())
    await asyncio.wait([loop], timeout=0)
    assert shift.settling.passes == 0
    shift.settling.waiting = 1
    shift.settling.news.set()
    await soon(lambda: shift.settling.passes == 1)
    await soon(lambda: clock.slept == [0.5])
    clock.advance(0.5)
    await soon(lambda: clock.slept == [0.5, 0.5])
    assert shift.unstuck == 0
    clock.advance(0.5)
    await soon(lambda: shift.unstuck == 1)
    shift.supervisor.stop()
    await loop
