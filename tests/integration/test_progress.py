"""Progress: the latest, ten times a second at most, the last always, and only while the job is ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis.asyncio

from jobqd.duties.outage import Outage
from jobqd.duties.progress import INTERVAL, Estimate, ProgressWriter
from jobqd.errors import StoreError
from jobqd.handlers import Handlers
from jobqd.job import Job, SyncJob
from jobqd.keys import Keys, Seat
from jobqd.runs import Run
from jobqd.store import Link, Target, running
from jobqd.supervisor import Supervisor
from tests.support.assembled import assembled, enqueue
from tests.support.clock import ManualClock
from tests.support.parts import run_of, world
from tests.support.waiting import soon


class Studio:
    """A claimed job, a writer with a clock by hand, and a subscriber to the job's channel."""

    def __init__(self, link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
        self.link, self.keys, self.raw, self.clock = link, keys, raw, ManualClock(1000.0)
        self.seat = Seat(keys, "worker-1", 15.0)
        self.writer = ProgressWriter(link, self.seat, self.clock)

    async def claim(self, job_id: str = "film") -> Run:
        await enqueue(self.raw, self.keys, job_id, "film")
        claims = await self.link.run(running.claim(self.seat, int(self.clock.now * 1000), 10, 86400.0, {"film": -1}))
        self.clock.now += 1
        return run_of(claims.jobs[0], started=self.clock.now)

    async def hash(self, job_id: str = "film") -> list[str | None]:
        return await self.raw.hmget(self.keys.job(job_id), "progress", "step", "eta_seconds")


@pytest.fixture
def studio(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> Studio:
    return Studio(link, keys, raw)


async def listen(raw: redis.asyncio.Redis, channel: str) -> Any:
    """Return a subscription that stands."""
    pubsub = raw.pubsub()
    await pubsub.subscribe(channel)
    await soon(lambda: pubsub.get_message(timeout=0))
    return pubsub


async def drain(pubsub: Any) -> list[Any]:
    """Return the messages that have come, up to a mark of our own."""
    found = []
    channel = next(iter(pubsub.channels))
    client = redis.asyncio.Redis(connection_pool=pubsub.connection_pool)
    await client.publish(channel, "the end")
    while True:
        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
        if message is None or message["data"] == "the end":
            return found
        found.append(json.loads(message["data"]))


async def test_the_hash_and_the_message_say_the_same(studio: Studio) -> None:
    run = await studio.claim()
    pubsub = await listen(studio.raw, studio.keys.progress("film"))
    studio.writer.report(run, 67, "encoding", 12.4)
    assert await studio.writer.run_once() == INTERVAL
    assert await studio.hash() == ["67", "encoding", "12"]
    assert await drain(pubsub) == [{"progress": 67, "step": "encoding", "eta_seconds": 12}]
    await pubsub.aclose()


async def test_a_time_beyond_all_measure_is_one_that_a_person_can_read(studio: Studio) -> None:
    run = await studio.claim()
    pubsub = await listen(studio.raw, studio.keys.progress("film"))
    studio.writer.report(run, 67, None, 1e308)
    await studio.writer.run_once()
    assert (await studio.hash())[2] == "10000000000"
    assert await drain(pubsub) == [{"progress": 67, "eta_seconds": 10**10}]
    await pubsub.aclose()


async def test_only_the_latest_is_sent_and_ten_times_a_second_at_most(studio: Studio) -> None:
    run = await studio.claim()
    pubsub = await listen(studio.raw, studio.keys.progress("film"))
    supervisor = Supervisor(None, Outage(world(studio.clock)), studio.clock, on_unstuck=lambda: None)  # type: ignore[arg-type]
    loop = asyncio.create_task(supervisor.on_demand("progress", studio.writer))
    for percent in range(50):
        studio.writer.report(run, percent, None, 1)
    await soon(lambda: studio.clock.slept == [INTERVAL])
    for percent in range(50, 99):
        studio.writer.report(run, percent, None, 1)
    assert [message["progress"] for message in await drain(pubsub)] == [49]
    studio.clock.advance(INTERVAL)
    await soon(lambda: len(studio.clock.slept) == 2)
    assert [message["progress"] for message in await drain(pubsub)] == [98]
    # The last is sent at once, when its run ends.
    studio.writer.report(run, 100, None, 0)
    await studio.writer.finish(run)
    assert [message["progress"] for message in await drain(pubsub)] == [100]
    supervisor.stop()
    await loop
    await pubsub.aclose()


async def test_runs_share_a_call(studio: Studio) -> None:
    runs = [await studio.claim(f"film{n}") for n in range(5)]
    before = (await studio.raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    for run in runs:
        studio.writer.report(run, 10, None, None)
    await studio.writer.run_once()
    calls = (await studio.raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    assert calls <= 1
    assert [await studio.raw.hget(studio.keys.job(f"film{n}"), "progress") for n in range(5)] == ["10"] * 5


async def test_nothing_is_sent_without_news(studio: Studio) -> None:
    run = await studio.claim()
    studio.writer.report(run, 1, None, None)
    await studio.writer.run_once()
    before = (await studio.raw.info("stats"))["total_commands_processed"]
    await studio.writer.run_once()
    await studio.writer.finish(run)
    assert (await studio.raw.info("stats"))["total_commands_processed"] == before + 1


async def test_after_a_turn_that_failed_there_is_one_more_though_the_run_has_ended(studio: Studio) -> None:
    """Or the outage that it told of would last until somebody reports progress again."""
    run = await studio.claim()
    studio.writer.report(run, 50, None, None)
    real, studio.writer._link = studio.link, Link(Target("unix:///nowhere"))
    with pytest.raises(StoreError):
        await studio.writer.run_once()
    studio.writer._link = real
    await studio.writer.finish(run)
    async with asyncio.timeout(5):
        await studio.writer.wait()
    await studio.writer.run_once()


async def test_a_run_that_lost_its_job_says_nothing_any_more(studio: Studio) -> None:
    run = await studio.claim()
    studio.writer.report(run, 10, "ours", 1)
    await studio.writer.run_once()
    await studio.raw.hset(studio.keys.job("film"), mapping={"worker": "worker-2", "fence": 2})
    pubsub = await listen(studio.raw, studio.keys.progress("film"))
    studio.writer.report(run, 99, "not ours", 1)
    await studio.writer.run_once()
    studio.writer.report(run, 100, "not ours", 1)
    await studio.writer.finish(run)
    assert await studio.hash() == ["10", "ours", "1"]
    assert await drain(pubsub) == []
    await pubsub.aclose()


@pytest.mark.parametrize(
    ("percent", "shown"), [(-5, "0"), (250, "100"), (33.333333, "33.3333"), (0, "0"), (1e-9, "1e-09")]
)
async def test_percent_stays_between_0_and_100(studio: Studio, percent: float, shown: str) -> None:
    run = await studio.claim()
    studio.writer.report(run, percent, None, None)
    await studio.writer.run_once()
    assert (await studio.hash())[0] == shown


async def test_a_step_is_bounded(studio: Studio) -> None:
    run = await studio.claim()
    studio.writer.report(run, 1, "x" * 1000, None)
    await studio.writer.run_once()
    assert (await studio.hash())[1] == "x" * 200


async def test_the_remaining_time_is_estimated(studio: Studio) -> None:
    run = await studio.claim()
    studio.clock.now = run.started + 10
    studio.writer.report(run, 0, None, None)
    studio.clock.now = run.started + 20
    studio.writer.report(run, 25, None, None)
    await studio.writer.run_once()
    assert await studio.hash() == ["25", "", "60"]


def test_an_estimate_goes_by_this_run_alone() -> None:
    fresh = Estimate(0, started=0, now=10)
    assert fresh.seconds(0, 10) is None
    assert fresh.seconds(50, 10) == 10
    # A resumed run began at 80 %: the 10 s before its first report made none of them.
    resumed = Estimate(80, started=0, now=10)
    assert resumed.seconds(80, 10) is None
    assert resumed.seconds(90, 15) == 5
    assert resumed.seconds(70, 20) is None
    assert resumed.seconds(100, 20) == 0


@pytest.mark.parametrize("percent", [float("nan"), float("inf"), "half"])
@pytest.mark.parametrize("job_type", ["coroutine", "thread"])
async def test_progress_that_is_not_a_number_is_the_handlers_error(
    target: Target, keys: Keys, percent: Any, job_type: str
) -> None:
    handlers = Handlers()
    raised: list[str] = []

    @handlers.job("coroutine")
    async def coroutine(job: Job) -> None:
        try:
            await job.progress(percent)
        except (TypeError, ValueError) as error:
            raised.append(str(error))

    @handlers.job("thread")
    def thread(job: SyncJob) -> None:
        try:
            job.progress(percent)
        except (TypeError, ValueError) as error:
            raised.append(str(error))

    async with assembled(target, keys, handlers) as parts:
        raw = redis.asyncio.Redis(unix_socket_path=target.name, decode_responses=True)
        await enqueue(raw, keys, "job", job_type)
        await parts.claimer.run_once()
        await soon(lambda: len(parts.settler))
        await raw.aclose()
    assert len(raised) == 1
