"""The heartbeat: leases renewed, losses told, the loop watched; and when a daemon may judge others."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import redis.asyncio

from jobqd.clock import SystemClock, World
from jobqd.duties.outage import Outage
from jobqd.heartbeat import Heartbeat
from jobqd.keys import Keys, Seat
from jobqd.loopwatch import LoopWatch
from jobqd.runs import Runs
from jobqd.store import Link, SyncLink, Target, running
from tests.redis_server import RedisServer
from tests.support.assembled import enqueue
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import claimed, run_of, world
from tests.support.waiting import soon


class Heart:
    """A heartbeat of a worker with a clock by hand, not started."""

    def __init__(self, target: Target, keys: Keys, lease: float = 15.0, clock: Any = None) -> None:
        self.clock, self.log, self.runs = clock or ManualClock(), RecordingLog(), Runs()
        self.lost: list[tuple[str, int, str]] = []
        self.seat = Seat(keys, "worker-1", lease)
        made = world(self.clock, log=self.log)
        self.link = SyncLink(target)
        self.given_up: list[tuple[Any, str]] = []
        self.watch = LoopWatch(self.runs, made, limit=60.0, give_up=lambda *given: self.given_up.append(given))
        self.heart = Heartbeat(
            self.link, self.seat, self.runs, Outage(made), made,
            watch=self.watch, describe=lambda: {"instance": "default", "pid": 7},
            on_lost=lambda *run: self.lost.append(run),
        )  # fmt: skip

    async def claim(self, link: Link) -> None:
        claims = await link.run(running.claim(self.seat, 1, 10, 86400.0, {"film": -1}))
        for job in claims.jobs:
            self.runs.add(run_of(job))

    async def earn(self) -> None:
        """Beat until the daemon may judge others."""

        async def earned() -> bool:
            await asyncio.to_thread(self.heart.beat_once)
            return self.heart.trust.earned(time.monotonic())

        await soon(earned)


async def test_a_beat_renews_every_lease_and_vouches_for_the_daemon(
    target: Target, link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    made = Heart(target, keys)
    await enqueue(raw, keys, "a", "film")
    await enqueue(raw, keys, "b", "film")
    await made.claim(link)
    await raw.zadd(keys.active, {"a": 5, "b": 5})  # they have lapsed, and nobody has taken them
    assert await asyncio.to_thread(made.heart.beat_once) == 5.0
    now = time.time()
    assert all([now + 10 < await raw.zscore(keys.active, job_id) < now + 20 for job_id in "ab"])
    assert await raw.hgetall(keys.daemon("worker-1")) == {"instance": "default", "pid": "7"}
    assert 10 < await raw.ttl(keys.daemon("worker-1")) <= 15
    assert await raw.zrange(keys.daemons, 0, -1) == ["worker-1"]
    assert made.lost == []
    made.heart.close()


async def test_lost_and_cancelled_runs_are_told_on_the_loop(
    target: Target, link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    made = Heart(target, keys)
    for job_id in ("cancelled", "kept", "lost"):
        await enqueue(raw, keys, job_id, "film")
    await made.claim(link)
    await raw.hset(keys.job("cancelled"), "status", "cancelled")
    await raw.zrem(keys.active, "cancelled")
    await raw.hset(keys.job("lost"), "worker", "worker-2")
    await asyncio.to_thread(made.heart.beat_once)
    await soon(lambda: len(made.lost) == 2)
    assert sorted(made.lost) == [("cancelled", 1, "cancelled"), ("lost", 1, "lost")]
    made.heart.close()


async def test_beats_that_fail_come_sooner_and_cost_the_trust(own_server: RedisServer) -> None:
    made = Heart(Target(own_server.url), Keys(), lease=0.2, clock=SystemClock())
    await made.earn()
    own_server.stop()
    for _ in range(5):
        assert 0 < await asyncio.to_thread(made.heart.beat_once) <= 0.2 / 6
    assert not made.heart.trust.earned(time.monotonic())
    assert made.log.of("redis.away")
    made.heart.close()


async def test_another_redis_in_its_place_must_earn_trust_anew(own_server: RedisServer) -> None:
    made = Heart(Target(own_server.url), Keys(), lease=0.2, clock=SystemClock())
    await made.earn()
    first = made.heart.trust
    own_server.stop()
    own_server.start()
    made.link.close()  # a first beat that fails on the dead connection is another test
    await asyncio.to_thread(made.heart.beat_once)
    assert not first.earned(time.monotonic())
    await made.earn()
    made.heart.close()


async def test_a_redis_user_that_may_not_ask_who_it_talks_to_earns_trust_by_the_clock_alone(
    own_server: RedisServer,
) -> None:
    SyncLink(Target(own_server.url)).command("ACL", "SETUSER", "default", "-info")
    made = Heart(Target(own_server.url), Keys(), lease=0.2, clock=SystemClock())
    await made.earn()
    assert made.log.events == []
    made.heart.close()


async def test_a_blocked_loop_is_reported_with_its_job_and_stack(target: Target, keys: Keys) -> None:
    made = Heart(target, keys)

    async def handler() -> None:
        a_function_that_blocks()

    def a_function_that_blocks() -> None:
        # From a thread of its own, as the heartbeat does, while the loop stands here.
        def look() -> None:
            made.watch.look()
            made.clock.now += 0.9
            made.watch.look()
            assert made.log.events == []
            made.clock.now += 0.2
            made.watch.look()
            made.watch.look()

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    run = run_of(claimed("blocker", 3, type="film"))
    made.runs.add(run)
    run.task = asyncio.create_task(handler())
    await run.task
    (told,) = made.log.of("loop.blocked")
    assert (told["job_id"], told["job_type"], told["fence"]) == ("blocker", "film", 3)
    assert "a_function_that_blocks" in told["stack"]
    assert 1.0 < told["duration"] < 1.2
    await soon(lambda: made.log.of("loop.unblocked"))
    # A loop that answers in time is not spoken of.
    made.watch.look()
    await soon(lambda: not made.watch.waiting)
    made.clock.now += 100
    made.watch.look()
    await soon(lambda: not made.watch.waiting)
    assert len(made.log.of("loop.blocked")) == len(made.log.of("loop.unblocked")) == 1
    made.heart.close()


async def test_a_loop_blocked_for_too_long_is_given_up_with_its_blocker(target: Target, keys: Keys) -> None:
    made = Heart(target, keys)

    async def handler() -> None:
        def look() -> None:
            for seconds in (0, 59, 2):
                made.clock.now += seconds
                made.watch.look()
                assert bool(made.given_up) == (seconds == 2)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    run = run_of(claimed("blocker", 3, type="film"))
    made.runs.add(run)
    run.task = asyncio.create_task(handler())
    await run.task
    assert made.given_up == [(run, "it blocked the event loop for 1m1s (block_limit)")]
    made.heart.close()


async def test_the_thread_beats_by_itself_and_ends_when_told(
    target: Target, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    made = World(SystemClock(), lambda: 0.5, RecordingLog())
    heart = Heartbeat(
        SyncLink(target), Seat(keys, "worker-1", 0.3), Runs(), Outage(made), made,
        watch=LoopWatch(Runs(), made, limit=60.0, give_up=lambda *given: None),
        describe=lambda: {"pid": 7}, on_lost=lambda *run: None,
    )  # fmt: skip
    heart.start()
    await soon(lambda: raw.exists(keys.daemon("worker-1")))
    await raw.delete(keys.daemon("worker-1"))
    await soon(lambda: raw.exists(keys.daemon("worker-1")))
    await soon(lambda: heart.trust.earned(time.monotonic()))
    heart.close()
    assert not heart._thread.is_alive()


async def test_a_heartbeat_that_dies_takes_the_daemon_with_it(target: Target, keys: Keys) -> None:
    """A daemon that goes on claiming and renews nothing would lose every lease."""
    made = World(SystemClock(), lambda: 0.5, RecordingLog())

    def describe() -> dict[str, str]:
        raise OSError("no host name")

    heart = Heartbeat(
        SyncLink(target), Seat(keys, "worker-1", 0.3), Runs(), Outage(made), made,
        watch=LoopWatch(Runs(), made, limit=60.0, give_up=lambda *given: None),
        describe=describe, on_lost=lambda *run: None,
    )  # fmt: skip
    heart.start()
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="no host name"):
            await heart.died()
    heart.close()
