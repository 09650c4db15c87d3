"""Vouching: when the watchdog is pinged, and what is said when it is not."""

from __future__ import annotations

import asyncio

import pytest

from jobqd.app.vouch import TURN_LIMIT, Voucher, block_limit, stack_of_task
from jobqd.pulse import Pulse
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world
from tests.support.waiting import soon


class Pings:
    """A notifier that counts."""

    def __init__(self) -> None:
        self.count = 0

    def watchdog(self) -> None:
        self.count += 1


class Desk:
    def __init__(self, watchdog: float | None = 180.0) -> None:
        self.clock, self.log, self.pings = ManualClock(), RecordingLog(), Pings()
        self.claim, self.settle = Pulse("claim", self.clock), Pulse("settle", self.clock)
        self.problem: str | None = None
        self.voucher = Voucher(
            self.pings,  # type: ignore[arg-type]
            world(self.clock, log=self.log),
            watchdog,
            pulses=lambda: [self.claim, self.settle],
            stuck=lambda: self.problem,
        )


def test_parts_that_wait_for_something_to_do_are_well_for_ever() -> None:
    desk = Desk()
    for _ in range(10):
        desk.voucher.run_once()
        desk.clock.advance(3600)
    assert desk.pings.count == 10
    assert desk.log.records == []


@pytest.mark.parametrize(("watchdog", "limit"), [(180.0, 180.0), (5.0, TURN_LIMIT), (None, TURN_LIMIT)])
async def test_a_turn_without_end_is_not_vouched_for_and_named_once(watchdog: float | None, limit: float) -> None:
    desk = Desk(watchdog)
    with desk.settle:
        desk.clock.advance(limit)
        desk.voucher.run_once()
        assert desk.pings.count == 1, "within the limit"
        desk.clock.advance(1)
        desk.voucher.run_once()
        desk.voucher.run_once()
        assert desk.pings.count == 1
    ((level, event, fields),) = desk.log.records
    assert (level, event, fields["part"]) == ("critical", "daemon.stuck", "settle")
    assert "settle" in fields["reason"]
    desk.voucher.run_once()
    assert desk.pings.count == 2
    assert desk.log.events[1:] == ["daemon.vouches"]


def test_turns_that_follow_one_another_are_progress() -> None:
    desk = Desk()
    for _ in range(10):
        with desk.claim:
            desk.clock.advance(100)
            desk.voucher.run_once()
    assert desk.pings.count == 10


async def test_without_a_worker_left_it_is_not_vouched_for() -> None:
    desk = Desk()
    desk.problem = "no worker is left"
    desk.voucher.run_once()
    assert desk.pings.count == 0
    assert desk.log.of("daemon.stuck")[0]["reason"] == "no worker is left"


async def test_it_pings_four_times_in_the_watchdogs_time() -> None:
    desk = Desk(8.0)
    loop = asyncio.create_task(desk.voucher.run())
    await soon(lambda: desk.clock.slept == [2.0])
    desk.clock.advance(2.0)
    await soon(lambda: desk.pings.count == 2)
    loop.cancel()


async def test_the_stack_of_a_stuck_part_leads_to_where_it_waits() -> None:
    never = asyncio.Event()

    async def innermost() -> None:
        await never.wait()

    async def outermost() -> None:
        await innermost()

    task = asyncio.create_task(outermost(), name="settle")
    await asyncio.sleep(0)
    stack = stack_of_task("settle")
    assert stack.index("in outermost") < stack.index("await innermost()") < stack.index("in innermost")
    assert "await never.wait()" in stack
    assert stack_of_task("nothing") == ""
    task.cancel()


def test_a_blocked_loop_is_given_up_before_the_watchdog_acts() -> None:
    assert block_limit(120.0, None) == 120.0
    assert block_limit(120.0, 180.0) == 120.0
    assert block_limit(120.0, 30.0) == 20.0
