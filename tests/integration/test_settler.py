"""Settling: batches, lost replies, a Redis that refuses, a stop that gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import redis.asyncio

from jobqd.duties.outage import Outage
from jobqd.duties.settle import BATCH_MAX, REFUSALS, Pending, Settler
from jobqd.errors import StoreError, StoreFault
from jobqd.keys import Keys, Seat
from jobqd.retry import Settlement
from jobqd.runs import Completed, Failed, Run, Runs
from jobqd.scripts import script
from jobqd.store import Ledger, Link, Target, running
from tests.redis_server import RedisServer
from tests.support.assembled import enqueue
from tests.support.log import RecordingLog
from tests.support.parts import policy, run_of, world
from tests.support.proxy import reply_thief


class UnluckyLedger(Ledger):
    """Meets an error that nobody foresaw, and that waiting does not cure, with every outcome of one job."""

    async def settle(self, orders: Sequence[Settlement]) -> list[str]:
        if any(order.job_id == "unlucky" for order in orders):
            raise StoreError(StoreFault.OTHER, "ERR something that nobody foresaw")
        return await super().settle(orders)


class Desk:
    """A settler with a ledger of its own, and the answers that it told."""

    def __init__(self, link: Link, keys: Keys, kind: type[Ledger] = Ledger) -> None:
        self.log = RecordingLog()
        self.seat = Seat(keys, "worker-1", 15.0)
        self.runs = Runs()
        self.told: list[tuple[str, str]] = []
        made = world(log=self.log)
        self.outage = Outage(made)
        ledger = kind(link, keys, dead_max=100, trimmed_ttl=60.0)
        self.settler = Settler(ledger, "worker-1", self.runs, self.outage, made, on_settled=self._tell)
        self._link = link

    def _tell(self, pending: Pending, answer: str) -> None:
        self.told.append((pending.run.claimed.id, answer))

    async def claim(self, count: int = 100, number: int = 1) -> list[Run]:
        """Lease what is ready to this worker."""
        claims = await self._link.run(running.claim(self.seat, number, count, 86400.0, {"film": -1}))
        runs = [run_of(job, policy()) for job in claims.jobs]
        for run in runs:
            self.runs.add(run)
        return runs


async def test_outcomes_are_settled_in_one_batch_and_their_runs_let_go(
    link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    desk = Desk(link, keys)
    for job_id in ("a", "b", "c"):
        await enqueue(raw, keys, job_id, "film")
    runs = await desk.claim()
    before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    for run in runs:
        desk.settler.submit(run, Completed('"done"'))
    assert len(desk.settler) == len(desk.runs) == 3
    assert await desk.settler.run_once() == 0.0
    assert (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
    assert desk.told == [("a", "ok"), ("b", "ok"), ("c", "ok")]
    assert len(desk.settler) == len(desk.runs) == 0
    await desk.settler.wait_idle()
    assert [await raw.hget(keys.job(job_id), "status") for job_id in "abc"] == ["completed"] * 3


async def test_a_large_backlog_goes_in_bounded_batches(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
    desk = Desk(link, keys)
    count = BATCH_MAX + 10
    for n in range(count):
        await enqueue(raw, keys, f"job{n}", "film")
    for run in await desk.claim(count):
        desk.settler.submit(run, Completed("null"))
    await desk.settler.run_once()
    assert len(desk.settler) == 10
    await desk.settler.run_once()
    assert len(desk.settler) == 0
    assert await raw.hget(keys.counters, "completed") == str(count)


async def test_a_settle_whose_reply_was_lost_is_sent_again_and_counts_once(
    redis_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    async with reply_thief(redis_server.socket) as thief:
        link = Link(Target(thief.url))
        desk = Desk(link, keys)
        await enqueue(raw, keys, "good", "film")
        await enqueue(raw, keys, "bad", "film")
        good, bad = sorted(await desk.claim(), key=lambda run: run.claimed.id, reverse=True)
        desk.settler.submit(good, Completed('"done"'))
        desk.settler.submit(bad, Failed("no", "OSError"))
        # The script is known to the server by now, so the request that executes names it by its SHA-1.
        await raw.script_load(script("settle").source)
        thief.lose_reply_to(script("settle").sha)
        assert await desk.settler.run_once() == 0.0
        assert (thief.lost, desk.settler.stuck, desk.told) == (1, True, [])
        assert await raw.hget(keys.job("good"), "status") == "completed"
        assert len(desk.runs) == len(desk.settler) == 2
        assert await desk.settler.run_once() == 0.0
        assert not desk.settler.stuck
        assert desk.told == [("good", "already"), ("bad", "already")]
        await link.close()
    assert await raw.hmget(keys.job("good"), "attempts", "result") == ["1", '"done"']
    assert await raw.hmget(keys.job("bad"), "attempts", "status") == ["1", "retrying"]
    assert (await raw.hget(keys.job("bad"), "_history")).count("\n") == 0
    assert await raw.hgetall(keys.counters) == {"entered": "2", "completed": "1", "retried": "1"}


async def test_one_outcome_that_redis_never_takes_does_not_hold_up_the_others(
    link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    desk = Desk(link, keys, UnluckyLedger)
    for job_id in ("a", "unlucky", "z"):
        await enqueue(raw, keys, job_id, "film")
    a, b, z = await desk.claim()
    for run in (a, b, z):
        desk.settler.submit(run, Completed("1"))
    # All three, then a alone, the unlucky one alone until it is given up, and z.
    for _ in range(REFUSALS + 3):
        await desk.settler.run_once()
    assert [(job_id, answer.partition(":")[0]) for job_id, answer in desk.told] == [
        ("a", "ok"), ("unlucky", "error"), ("z", "ok"),
    ]  # fmt: skip
    assert [await raw.hget(keys.job(job_id), "attempts") for job_id in "az"] == ["1", "1"]


async def test_after_giving_the_last_one_up_the_settler_is_idle_and_claiming_goes_on(
    link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    desk = Desk(link, keys, UnluckyLedger)
    await enqueue(raw, keys, "unlucky", "film")
    (b,) = await desk.claim()
    desk.settler.submit(b, Completed("1"))
    for _ in range(REFUSALS):
        assert desk.told == []
        assert await desk.settler.run_once() > 0
    assert [job_id for job_id, _ in desk.told] == ["unlucky"]
    assert not desk.settler.stuck
    assert len(desk.runs) == 0
    async with asyncio.timeout(1):
        await desk.settler.wait_idle()
    waiting = asyncio.ensure_future(desk.settler.wait())
    await asyncio.wait([waiting], timeout=0)
    assert not waiting.done(), "it says that there is something to settle, and there is nothing"
    waiting.cancel()


async def test_an_answer_that_comes_after_the_stop_gave_up_harms_nothing(
    redis_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    async with reply_thief(redis_server.socket) as thief:
        link = Link(Target(thief.url))
        desk = Desk(link, keys)
        await enqueue(raw, keys, "a", "film")
        await raw.script_load(script("settle").source)
        (run,) = await desk.claim()
        desk.settler.submit(run, Completed("1"))
        thief.hold_reply_to(script("settle").sha)
        settling = asyncio.create_task(desk.settler.run_once())
        await thief.executed.wait()
        given_up: list[str] = []
        desk.settler.abandon(lambda pending: given_up.append(pending.run.claimed.id))
        thief.let_go.set()
        await settling
        assert given_up == ["a"]
        assert desk.told == []
        # Its run still counts as ours: whoever holds the lock file next looks at it.
        assert desk.runs.holds("a")
        async with asyncio.timeout(1):
            await desk.settler.wait_idle()
        await link.close()


async def test_while_redis_is_away_outcomes_wait_in_order(own_server: RedisServer) -> None:
    keys, link = Keys(), Link(Target(own_server.url))
    desk = Desk(link, keys)
    async with redis.asyncio.Redis(unix_socket_path=str(own_server.socket)) as raw:
        for job_id in ("a", "b"):
            await enqueue(raw, keys, job_id, "film")
    a, b = await desk.claim()
    own_server.stop()
    desk.settler.submit(a, Completed("1"))
    assert await desk.settler.run_once() == 0.0
    assert await desk.settler.run_once() > 0
    assert desk.settler.stuck
    desk.settler.submit(b, Completed("2"))
    own_server.start()  # it kept nothing
    assert await desk.settler.run_once() == 0.0
    assert desk.told == [("a", "gone"), ("b", "gone")]
    assert desk.log.of("redis.back")
    await link.close()


async def test_a_stale_run_is_refused(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
    desk = Desk(link, keys)
    await enqueue(raw, keys, "a", "film")
    (run,) = await desk.claim()
    await raw.hset(keys.job("a"), "worker", "worker-2")
    desk.settler.submit(run, Completed("1"))
    await desk.settler.run_once()
    assert desk.told == [("a", "stale")]
    assert await raw.hget(keys.job("a"), "status") == "processing"
    assert await raw.hget(keys.job("a"), "result") is None
