"""Claiming: as much as there are idle workers, once each, whatever becomes of the reply."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from jobqd.duties.settle import BATCH_MAX
from jobqd.handlers import Handlers
from jobqd.keys import Keys
from jobqd.runs import Completed
from jobqd.scripts import script
from jobqd.store import Target
from tests.redis_server import RedisServer
from tests.support.assembled import assembled, enqueue
from tests.support.log import RecordingLog
from tests.support.parts import claimed, run_of
from tests.support.proxy import reply_thief
from tests.support.waiting import soon


class Works:
    """Handlers that note their runs and wait until they are let go."""

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.ran: list[str] = []
        self.let_go = asyncio.Event()

        @self.handlers.job("film", concurrency=2)
        async def film(n: str = "") -> None:
            self.ran.append(n)
            await self.let_go.wait()

        @self.handlers.job("mail")
        async def mail(n: str = "") -> None:
            self.ran.append(n)
            await self.let_go.wait()


@pytest.fixture
async def works() -> Works:
    return Works()


async def test_a_claim_takes_no_more_than_there_are_idle_workers(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    for n in range(5):
        await enqueue(raw, keys, f"m{n}", "mail", n=n)
    async with assembled(target, keys, works.handlers, concurrency=3) as parts:
        assert await parts.claimer.run_once() == 0.0
        assert (parts.pool.busy, parts.pool.idle, len(parts.runs)) == (3, 0, 3)
        assert await raw.zrange(keys.ready, 0, -1) == ["m3", "m4"]
        assert await raw.zcard(keys.active) == 3
        works.let_go.set()
        await soon(lambda: parts.pool.idle == 3)
        await parts.claimer.run_once()
        await soon(lambda: works.ran == ["0", "1", "2", "3", "4"])


async def test_the_loop_fills_workers_as_they_fall_free_and_ends_when_stopped(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    works.let_go.set()
    for n in range(10):
        await enqueue(raw, keys, f"m{n}", "mail", n=n)
    async with assembled(target, keys, works.handlers, concurrency=2) as parts:
        claiming = asyncio.create_task(parts.claimer.run())
        await soon(lambda: len(works.ran) == 10)
        # Woken by the server's word alone.
        await enqueue(raw, keys, "later", "mail", n="later")
        await soon(lambda: "later" in works.ran)
        parts.claimer.stop()
        async with asyncio.timeout(5):
            await claiming
        assert len(parts.settler) == 11


async def test_a_claim_whose_reply_was_lost_leases_nothing_to_nobody(
    redis_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    async with (
        reply_thief(redis_server.socket) as thief,
        assembled(Target(thief.url), keys, works.handlers, concurrency=4) as parts,
    ):
        for n in range(6):
            await enqueue(raw, keys, f"m{n}", "mail", n=n)
        await raw.script_load(script("claim").source)
        thief.lose_reply_to(script("claim").sha)
        assert await parts.claimer.run_once() == 0.0
        assert (thief.lost, parts.pool.busy) == (1, 0)
        assert parts.claimer.unanswered
        leased = set(await raw.zrange(keys.active, 0, -1))
        assert leased == {"m0", "m1", "m2", "m3"}
        await parts.claimer.run_once()
        assert not parts.claimer.unanswered
        assert {run.claimed.id for run in parts.runs} == leased
        assert {run.claimed.fence for run in parts.runs} == {1}
        assert set(await raw.zrange(keys.active, 0, -1)) == leased
        # The next claim has a number of its own, and brings other jobs.
        works.let_go.set()
        await soon(lambda: parts.pool.idle == 4)
        await parts.claimer.run_once()
        await soon(lambda: sorted(works.ran) == ["0", "1", "2", "3", "4", "5"])


async def test_a_stop_asks_once_more_for_what_a_lost_reply_brought_and_hands_it_back(
    redis_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    async with (
        reply_thief(redis_server.socket) as thief,
        assembled(Target(thief.url), keys, works.handlers) as parts,
    ):
        await enqueue(raw, keys, "m", "mail", score=7)
        await raw.script_load(script("claim").source)
        thief.lose_reply_to(script("claim").sha)
        await parts.claimer.run_once()
        parts.claimer.stop()
        await parts.claimer.run()
        await parts.settler.run_once()
        job = await raw.hgetall(keys.job("m"))
        assert (job["status"], works.ran) == ("queued", [])
        # It was not begun: not even an interruption.
        assert "interruptions" not in job
        assert "attempts" not in job
        assert await raw.zscore(keys.ready, "m") == 7
        assert await raw.zcard(keys.active) == 0


FIELDS_OF_OURS = ["_x", "result", "traceback", "worker", "checkpoint", "timeout"]


async def test_megabytes_under_a_name_of_ours_are_not_sent_over_a_slow_link(
    redis_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    works.let_go.set()
    async with (
        reply_thief(redis_server.socket) as thief,
        assembled(Target(thief.url), keys, works.handlers, concurrency=9) as parts,
    ):
        # Ten seconds for each of the fields: twice as long as a reply is waited for.
        thief.rate = 1e6
        for n, name in enumerate(FIELDS_OF_OURS):
            await enqueue(raw, keys, f"big-{name}", "mail", n, n=name, **{name: "x" * 10_000_000})
        await enqueue(raw, keys, "neighbour", "mail", 99, n="neighbour")
        for _ in range(len(FIELDS_OF_OURS) + 1):
            assert await parts.claimer.run_once() == 0.0
            assert not parts.claimer.unanswered
        await soon(lambda: sorted(works.ran) == ["_x", "neighbour", "result", "traceback", "worker"])
        await soon(lambda: parts.pool.idle == 9)
        while len(parts.settler):
            await parts.settler.run_once()
        assert thief.passed < 1e6
    for name, limit in (("checkpoint", "max_result (1MiB)"), ("timeout", "the 4KiB that it may be")):
        error = await raw.hget(keys.job(f"big-{name}"), "error")
        assert f"its {'field ' * (name == 'timeout')}{name} is 9.54MiB, more than {limit}" in error
    await raw.delete(*(keys.job(f"big-{name}") for name in FIELDS_OF_OURS))


async def test_a_type_at_its_cap_is_put_aside_and_taken_when_there_is_room(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    for n in range(4):
        await enqueue(raw, keys, f"f{n}", "film", score=1, n=f"f{n}")
    await enqueue(raw, keys, "m", "mail", score=50, n="m")
    async with assembled(target, keys, works.handlers, concurrency=8) as parts:
        claiming = asyncio.create_task(parts.claimer.run())
        await soon(lambda: sorted(works.ran) == ["f0", "f1", "m"])
        assert await raw.zrange(keys.held_for("type:film"), 0, -1) == ["f2", "f3"]
        assert parts.pool.allowances() == {"film": 0, "mail": -1}
        works.let_go.set()
        # Nobody has touched the ready set: the freed place alone makes the claimer look.
        await soon(lambda: sorted(works.ran) == ["f0", "f1", "f2", "f3", "m"])
        parts.claimer.stop()
        await claiming


async def test_nothing_is_claimed_while_results_cannot_be_settled(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    async with assembled(target, keys, works.handlers) as parts:
        parts.settler.stuck = True
        await enqueue(raw, keys, "m", "mail")
        claiming = asyncio.create_task(parts.claimer.run())
        parts.claimer.nudge(more=True)
        await asyncio.wait([claiming], timeout=0)
        # A claim, had there been one, would have gone before this on the same connection.
        await parts.wakeup.link.command("PING")
        assert await raw.zcard(keys.ready) == 1
        parts.settler.stuck = False
        parts.claimer.nudge(more=True)
        await soon(lambda: works.ran)
        parts.claimer.stop()
        works.let_go.set()
        await claiming


async def test_claiming_waits_for_settling_to_keep_up(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    """Else a daemon that is killed leaves thousands of finished jobs to be run again."""
    async with assembled(target, keys, works.handlers, concurrency=3) as parts:
        await enqueue(raw, keys, "m", "mail")
        for n in range(BATCH_MAX):
            parts.settler.submit(run_of(claimed(f"done-{n}")), Completed("1"))
        claiming = asyncio.create_task(parts.claimer.run())
        parts.claimer.nudge(more=True)
        await asyncio.wait([claiming], timeout=0)
        await parts.wakeup.link.command("PING")
        assert await raw.zcard(keys.ready) == 1
        # Settling them wakes the claimer.
        await parts.settler.run_once()
        await soon(lambda: works.ran)
        parts.claimer.stop()
        works.let_go.set()
        await claiming


async def test_what_was_dropped_from_the_queue_is_told(
    target: Target, keys: Keys, raw: redis.asyncio.Redis, works: Works
) -> None:
    await raw.lpush(keys.job("list"), "x")
    await raw.zadd(keys.ready, {"list": 1})
    log = RecordingLog()
    async with assembled(target, keys, works.handlers, log=log) as parts:
        await parts.claimer.run_once()
    assert [record["job_id"] for record in log.of("job.dropped")] == ["list"]
