"""Recovering what lapsed, and what a dead predecessor held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import redis.asyncio

from jobqd.duties.recover import Recoverer
from jobqd.duties.trust import Trust
from jobqd.errors import StoreError, StoreFault
from jobqd.handlers import Handlers
from jobqd.job import Claimed
from jobqd.keys import Keys, Seat
from jobqd.policy import Policies
from jobqd.retry import MAX_LAPSES, Settlement
from jobqd.settings import Settings
from jobqd.store import Ledger, Link, Target, running
from jobqd.store.call import Call
from tests.redis_server import RedisServer
from tests.support.assembled import enqueue
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world

LEASE = 15.0


class Rescue:
    """A recoverer with a clock by hand, and a trust that the test has it earn."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self.link, self.keys, self.log, self.trust = link, keys, RecordingLog(), Trust(LEASE)
        self.clock = ManualClock()
        self.dead: list[tuple[Claimed, Settlement]] = []
        self.recoverer = Recoverer(
            link, keys, Ledger(link, keys, dead_max=100, trimmed_ttl=60.0), Policies(Settings(), Handlers()),
            world(self.clock, log=self.log), trust=self.trust,
            on_dead=lambda job, order: self.dead.append((job, order)),
        )  # fmt: skip

    async def earn(self, raw: redis.asyncio.Redis, server: str = "") -> None:
        """Renew for a full lease, without waiting for it."""
        server = server or (await raw.info("server"))["run_id"]
        seconds, micros = await raw.time()
        monotonic, now = self.clock.now, seconds + micros / 1e6
        for ago in (LEASE, LEASE / 2, 0.0):
            self.trust.beat(monotonic - ago, now - ago, server)

    async def lease(self, raw: redis.asyncio.Redis, *job_ids: str, worker: str = "dead", **fields: object) -> None:
        """Let a worker claim jobs."""
        for job_id in job_ids:
            await enqueue(raw, self.keys, job_id, "film", **fields)
        seat = Seat(self.keys, worker, 15.0)
        await self.link.run(running.claim(seat, time.monotonic_ns(), 500, 86400.0, {"film": -1}))

    async def lapse(self, raw: redis.asyncio.Redis, *job_ids: str) -> None:
        await raw.zadd(self.keys.active, dict.fromkeys(job_ids, time.time() - 1))


@pytest.fixture
async def rescue(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> Rescue:
    made = Rescue(link, keys)
    await made.earn(raw)
    return made


async def test_a_lapsed_lease_is_handed_back_and_counted_as_a_crash(
    rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    await rescue.lease(raw, "lapsed", "held")
    await rescue.lapse(raw, "lapsed")
    assert await rescue.recoverer.run_once() == 1.0
    job = await raw.hgetall(keys.job("lapsed"))
    assert (job["status"], job["crashes"], job.get("attempts"), job.get("worker")) == ("queued", "1", None, None)
    assert await raw.zrange(keys.ready, 0, -1) == ["lapsed"]
    assert await raw.zrange(keys.active, 0, -1) == ["held"]
    (told,) = rescue.log.of("job.recovered")
    assert (told["job_id"], told["reason"], told["crashes"]) == ("lapsed", "its lease ran out", 1)


async def test_who_may_not_judge_does_not_sweep(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
    rescue = Rescue(link, keys)
    await rescue.lease(raw, "lapsed")
    await rescue.lapse(raw, "lapsed")
    await raw.config_resetstat()
    assert await rescue.recoverer.run_once() == 1.0
    assert "cmdstat_evalsha" not in await raw.info("commandstats")
    assert await raw.hget(keys.job("lapsed"), "status") == "processing"


class Meanwhile:
    """A link over which something happens after the lapsed leases were read, before their list arrives."""

    def __init__(self, link: Link, happens: Callable[[running.Lapses], Any]) -> None:
        self._link, self._happens = link, happens
        self.moved = 0

    @property
    def generation(self) -> int:
        return self._link.generation + self.moved

    async def run(self, call: Call[Any]) -> Any:
        found = await self._link.run(call)
        return (self._happens(found) or found) if isinstance(found, running.Lapses) else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


async def swept(rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis) -> bool:
    """Whether it takes a lapsed job back."""
    await rescue.earn(raw)
    await rescue.lease(raw, "lapsed")
    await rescue.lapse(raw, "lapsed")
    assert await rescue.recoverer.run_once() == 1.0
    return await raw.hget(keys.job("lapsed"), "status") != "processing"


async def test_who_lost_the_right_while_redis_hung_does_not_act_on_its_answer(
    link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    rescue = Rescue(cast(Link, Meanwhile(link, lambda _: rescue.trust.lost())), keys)
    assert not await swept(rescue, keys, raw)


@pytest.mark.parametrize("step", [-60.0, 60.0])
async def test_who_meets_a_clock_that_stepped_before_its_renewals_did_does_not_sweep(
    link: Link, keys: Keys, raw: redis.asyncio.Redis, step: float
) -> None:
    stepped = Meanwhile(link, lambda found: replace(found, now=found.now + step))
    assert not await swept(Rescue(cast(Link, stepped), keys), keys, raw)


async def test_who_follows_a_failover_before_its_renewals_did_does_not_sweep(
    link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    moved = Meanwhile(link, lambda _: setattr(moved, "moved", 1))
    assert not await swept(Rescue(cast(Link, moved), keys), keys, raw)


async def test_who_sweeps_at_another_redis_than_it_renews_at_does_not(
    own_server: RedisServer, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    elsewhere = Link(Target(own_server.url))
    rescue = Rescue(elsewhere, keys)
    await rescue.earn(raw)
    there = redis.asyncio.Redis(unix_socket_path=str(own_server.socket), decode_responses=True)
    await rescue.lease(there, "lapsed")
    await rescue.lapse(there, "lapsed")
    assert await rescue.recoverer.run_once() == 1.0
    assert await there.hget(keys.job("lapsed"), "status") == "processing"
    await rescue.earn(there)
    await rescue.recoverer.run_once()
    assert await there.hget(keys.job("lapsed"), "status") == "queued"
    await there.aclose()
    await elsewhere.close()


async def test_doubts_that_last_are_told_once(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
    """Behind an endpoint of several nodes, say, nobody would take a dead daemon's jobs over, and nobody would know."""
    rescue = Rescue(link, keys)
    for step in range(10):
        await rescue.earn(raw, "another node")
        await rescue.recoverer.run_once()
        assert len(rescue.log.of("recover.doubts")) == (step * 5 > 2 * LEASE)
        rescue.clock.now += 5
    assert "another Redis answers" in rescue.log.of("recover.doubts")[0]["reason"]


async def test_from_the_second_lapse_on_a_job_waits(rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis) -> None:
    await rescue.lease(raw, "again", crashes=1)
    await rescue.lapse(raw, "again")
    await rescue.recoverer.run_once()
    job = await raw.hgetall(keys.job("again"))
    assert (job["status"], job["crashes"]) == ("retrying", "2")
    assert await raw.zscore(keys.scheduled, "again") > time.time() + 5


async def test_the_last_lapse_ends_in_the_dead_letters_and_the_hook_is_told(
    rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    await rescue.lease(raw, "poison", crashes=MAX_LAPSES - 1)
    await rescue.lapse(raw, "poison")
    await rescue.recoverer.run_once()
    job = await raw.hgetall(keys.job("poison"))
    assert (job["status"], job["error_type"]) == ("failed", "LeaseLapsed")
    assert await raw.lrange(keys.dead, 0, -1) == ["poison"]
    ((claimed, order),) = rescue.dead
    assert (claimed.id, order.to) == ("poison", "dead")
    assert rescue.log.of("job.dead")


async def test_a_dead_workers_jobs_are_taken_back_whatever_their_lease(
    rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    ours = [f"ours{n}" for n in range(210)]  # more than one page of the list
    others = [f"other{n}" for n in range(210)]
    await rescue.lease(raw, *others, worker="alive")
    await rescue.lease(raw, *ours, worker="dead")
    assert await raw.zcard(keys.active) == 420
    assert await rescue.recoverer.take_back("dead") == 210
    assert sorted(await raw.zrange(keys.ready, 0, -1)) == sorted(ours)
    assert sorted(await raw.zrange(keys.active, 0, -1)) == sorted(others)
    assert await rescue.recoverer.take_back("dead") == 0


class Renewing:
    """A link over which, after the first page of leases was read, other daemons renew all of that page."""

    def __init__(self, link: Link, raw: redis.asyncio.Redis, keys: Keys, others: list[str]) -> None:
        self._link, self._raw, self._keys, self._others = link, raw, keys, others

    async def run(self, call: Call[Any]) -> Any:
        found = await self._link.run(call)
        if self._others:
            later = time.time() + 60
            await self._raw.zadd(self._keys.active, dict.fromkeys(self._others, later))
            self._others = []
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


async def test_renewals_of_others_meanwhile_hide_none_of_a_dead_workers_jobs(
    rescue: Rescue, link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    ours, others = [f"ours{n}" for n in range(30)], [f"other{n}" for n in range(200)]
    await rescue.lease(raw, *others, worker="alive")
    await rescue.lease(raw, *ours, worker="dead")
    slow = Rescue(cast(Link, Renewing(link, raw, keys, others)), keys)
    assert await slow.recoverer.take_back("dead") == 30


async def test_a_dead_letter_is_told_of_though_its_fields_cannot_be_read(
    rescue: Rescue, link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    class Narrow(Renewing):
        async def command(self, *words: Any) -> Any:
            raise StoreError(StoreFault.DENIED, "NOPERM this user has no permissions")

    await rescue.lease(raw, "poison", crashes=MAX_LAPSES - 1)
    await rescue.lapse(raw, "poison")
    narrow = Rescue(cast(Link, Narrow(link, raw, keys, [])), keys)
    await narrow.earn(raw, "unknown")
    await narrow.recoverer.run_once()
    ((claimed, order),) = narrow.dead
    assert (claimed.id, order.to) == ("poison", "dead")


async def test_ended_leftovers_do_not_hide_what_is_behind_them(
    rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    await raw.zadd(keys.active, {f"gone{n}": 1 for n in range(200)})
    await rescue.lease(raw, "ours", worker="dead")
    assert await rescue.recoverer.take_back("dead") == 1
    assert await raw.zcard(keys.active) == 0


async def test_a_full_page_is_followed_by_the_next_at_once(
    rescue: Rescue, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    jobs = [f"job{n}" for n in range(201)]
    await rescue.lease(raw, *jobs)
    await rescue.lapse(raw, *jobs)
    assert await rescue.recoverer.run_once() == 0.0
    assert await rescue.recoverer.run_once() == 1.0
    assert await raw.zcard(keys.active) == 0
