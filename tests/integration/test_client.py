"""Queue and SyncQueue against real servers; the daemon's part is played by the store's own calls."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from jobqd.client import JobSpec, Limits, Progress, Queue, SyncQueue
from jobqd.errors import (
    EnqueueRefused,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobqdError,
    PayloadError,
    ResultTimeout,
    StoreError,
    StoreFault,
)
from jobqd.keys import Keys, Seat
from jobqd.retry import Settlement
from jobqd.store import Link, counting, reading, running
from jobqd.store.listening import Listener
from tests.redis_server import RedisServer

PACKAGES = Path(__file__).parents[2] / "daemon"


@pytest.fixture
async def queue(redis_server: RedisServer, keys: Keys) -> AsyncIterator[Queue]:
    async with Queue.from_url(redis_server.url, key_prefix=keys.prefix) as queue:
        yield queue


@pytest.fixture
def sync_queue(redis_server: RedisServer, keys: Keys) -> Iterator[SyncQueue]:
    with SyncQueue.from_url(redis_server.url, key_prefix=keys.prefix) as queue:
        yield queue


class Worker:
    """Plays a daemon: claims one job and does with it what the test wants."""

    def __init__(self, link: Link, keys: Keys, worker: str = "w1") -> None:
        self.link, self.keys, self.number = link, keys, 0
        self.seat = Seat(keys, worker, 60.0)

    async def claim(self, *types: str) -> running.Claimed:
        self.number += 1
        call = running.claim(self.seat, self.number, 1, 1e9, dict.fromkeys(types or ("mail",), -1))
        return (await self.link.run(call)).jobs[0]

    async def progress(self, job: running.Claimed, percent: int, step: str) -> None:
        message = json.dumps({"progress": percent, "step": step, "eta_seconds": 3})
        update = running.ProgressUpdate(job.id, job.fence, str(percent), step, "3", message)
        assert await self.link.run(running.progress(self.seat, [update])) == 0

    async def settle(self, job: running.Claimed, to: str, **facts) -> None:
        order = Settlement(job.id, self.seat.worker, job.fence, to, "attempts", ttl=100, **facts)
        call = running.settle(self.keys, [order], dead_max=100, trimmed_ttl=100)
        assert await self.link.run(call) == ["ok"]


@pytest.fixture
def worker(link: Link, keys: Keys) -> Worker:
    return Worker(link, keys)


async def test_an_enqueued_job_is_ready_as_the_protocol_says(queue, keys, raw):
    handle = await queue.enqueue("mail", {"to": "a"}, priority=10, max_attempts=3, timeout="2m")
    fields = await raw.hgetall(keys.job(handle.id))
    assert float(fields.pop("created_at")) > 1.7e9
    assert fields == {
        "status": "queued", "type": "mail", "payload": '{"to":"a"}', "priority": "10", "max_attempts": "3",
        "timeout": "120",
    }  # fmt: skip
    assert 10 < await raw.zscore(keys.ready, handle.id) < 11
    assert handle.created
    assert handle.existing_status is None
    assert await handle.status() == "queued"


async def test_a_delayed_job_is_scheduled(queue, keys, raw):
    later = await queue.enqueue("mail", delay="1h")
    fixed = await queue.enqueue("mail", at="2033-05-18T03:33:20Z")
    assert await later.status() == "scheduled"
    assert await raw.zscore(keys.scheduled, fixed.id) == 2e9
    info = await later.info()
    assert 3590 < info.due_at - info.seen_at <= 3600


async def test_an_id_that_exists_is_left_as_it_is(queue):
    assert (await queue.enqueue("mail", {"n": 1}, id="order-7")).created
    again = await queue.enqueue("mail", {"n": 2}, id="order-7")
    assert (again.created, again.existing_status) == (False, "queued")
    assert (await again.info()).payload == {"n": 1}


async def test_many_jobs_are_enqueued_in_order_and_in_batches(queue, keys, raw):
    handles = await queue.enqueue_many([JobSpec("mail", {"n": number}) for number in range(1100)])
    assert len({handle.id for handle in handles}) == await raw.zcard(keys.ready) == 1100
    assert await raw.zrange(keys.ready, 0, -1) == [handle.id for handle in handles]


@pytest.mark.parametrize("timeout", ["1 fortnight", -1])
async def test_a_timeout_that_is_none_is_named(queue, sync_queue, timeout):
    with pytest.raises(PayloadError, match=r"^timeout: .*(fortnight|-1).* is not a duration"):
        await queue.job("x").result(timeout=timeout)
    with pytest.raises(PayloadError, match=r"^timeout: .*(fortnight|-1).* is not a duration"):
        sync_queue.job("x").result(timeout=timeout)


async def test_nothing_is_written_when_one_of_many_is_unfit(queue, keys, raw):
    with pytest.raises(PayloadError) as caught:
        await queue.enqueue_many([JobSpec("mail"), JobSpec("")])
    assert str(caught.value).startswith("jobs[1]: type: ''")
    with pytest.raises(PayloadError) as alone:
        await queue.enqueue("")
    assert str(alone.value).startswith("type: ''")
    assert await raw.exists(keys.ready) == 0


async def test_a_full_queue_refuses_and_names_the_limit(redis_server, keys):
    async with Queue.from_url(redis_server.url, key_prefix=keys.prefix, limits=Limits(max_ready=2)) as queue:
        await queue.enqueue_many([JobSpec("mail"), JobSpec("mail")])
        with pytest.raises(EnqueueRefused, match=r"2 jobs are ready already and max_ready is 2"):
            await queue.enqueue("mail")


async def test_a_refusal_of_many_names_what_was_enqueued_before(redis_server, keys, raw):
    async with Queue.from_url(redis_server.url, key_prefix=keys.prefix, limits=Limits(max_ready=700)) as queue:
        with pytest.raises(EnqueueRefused, match="500 of 1000 jobs were enqueued before") as caught:
            await queue.enqueue_many([JobSpec("mail", {"n": number}) for number in range(1000)])
    assert list(caught.value.enqueued) == await raw.zrange(keys.ready, 0, -1)
    assert len(caught.value.enqueued) == 500


async def test_an_id_that_the_application_uses_for_a_hash_of_its_own_is_refused(queue, keys, raw):
    await raw.hset(keys.job("55"), mapping={"title": "a film"})
    with pytest.raises(EnqueueRefused, match="job:55 is a hash that is no job"):
        await queue.enqueue("mail", id="55")


async def test_a_full_redis_refuses_in_plain_words(own_server):
    client = redis.asyncio.Redis(unix_socket_path=str(own_server.socket))
    await client.config_set("maxmemory", "1mb")
    await client.aclose()
    async with Queue.from_url(own_server.url) as queue:
        with pytest.raises(EnqueueRefused, match="memory limit"):
            await queue.enqueue_many([JobSpec("mail", {"text": "x" * 100_000}) for _ in range(100)])


async def test_an_enqueue_outlasts_a_restart_of_redis(own_server):
    async with Queue.from_url(own_server.url, retry_for=10) as queue:
        await queue.enqueue("mail")
        own_server.stop()
        enqueueing = asyncio.create_task(queue.enqueue("mail"))
        await asyncio.to_thread(own_server.start)
        assert (await enqueueing).created


async def test_an_enqueue_gives_up_and_names_the_job(own_server):
    own_server.stop()
    async with Queue.from_url(own_server.url, retry_for=0.1) as queue:
        with pytest.raises(StoreError, match=r"did not answer for 0.1 s, so it is not known whether job a-1") as caught:
            await queue.enqueue("mail", id="a-1")
    assert (caught.value.fault, caught.value.in_doubt, caught.value.enqueued) == (StoreFault.DOWN, ("a-1",), ())


async def test_a_result_is_waited_for(queue, worker, raw):
    handle = await queue.enqueue("mail")
    waiting = asyncio.create_task(handle.result("30s"))
    await listened(raw, queue, handle.id)
    job = await worker.claim()
    await worker.settle(job, "completed", result='{"url": "x"}')
    async with asyncio.timeout(1.5):  # less than it takes to look without having been told
        assert await waiting == {"url": "x"}


async def listened(raw, queue: Queue, job_id: str) -> None:
    """Return when Redis knows that somebody listens to a job."""
    channel = queue.keys.progress(job_id)
    async with asyncio.timeout(5):
        while dict(await raw.pubsub_numsub(channel))[channel] == 0:
            await asyncio.sleep(0.001)


async def test_a_result_survives_the_loss_of_the_subscription(queue, worker, raw):
    handle = await queue.enqueue("mail")
    waiting = asyncio.create_task(handle.result("30s"))
    await listened(raw, queue, handle.id)
    await raw.client_kill_filter(_type="pubsub")
    job = await worker.claim()
    await worker.settle(job, "completed", result="1")
    async with asyncio.timeout(1.5):
        assert await waiting == 1


async def test_a_result_survives_a_restart_of_redis(own_server):
    own_server.stop()
    own_server.start("--appendonly", "yes")
    keys = Keys()
    async with Queue.from_url(own_server.url) as queue:
        handle = await queue.enqueue("mail")
        waiting = asyncio.create_task(handle.result("30s"))
        own_server.stop()
        await asyncio.to_thread(own_server.start, "--appendonly", "yes")
        link = Link(queue._source.target)
        worker = Worker(link, keys)
        await worker.settle(await worker.claim(), "completed", result="2")
        assert await waiting == 2
        await link.close()


async def test_how_a_job_ended_is_raised(queue, worker):
    failed, cancelled = await queue.enqueue("mail"), await queue.enqueue("mail")
    job = await worker.claim()
    await worker.settle(job, "dead", error="no such address", error_type="Fail")
    with pytest.raises(JobFailed, match="no such address") as caught:
        await failed.result()
    assert (caught.value.error_type, caught.value.attempts) == ("Fail", 1)
    assert await cancelled.cancel() is True
    assert await cancelled.cancel() is False
    assert await queue.cancel([cancelled.id, failed.id]) == {cancelled.id: "already", failed.id: "failed"}
    with pytest.raises(JobCancelled):
        await cancelled.result()


async def test_a_job_that_is_not_there_is_named(queue):
    handle = queue.job("nope")
    for call in (handle.status, handle.info, handle.progress, handle.result, handle.cancel):
        with pytest.raises(JobNotFound, match="'nope'"):
            await call()


async def test_a_result_that_does_not_come_in_time(queue):
    handle = await queue.enqueue("mail")
    with pytest.raises(ResultTimeout, match="has not ended within 50ms: it is queued, and goes on"):
        await handle.result(0.05)
    assert not queue._listener.channels


async def test_a_broken_result_is_an_error_and_not_a_crash(queue, keys, raw):
    await raw.hset(keys.job("odd"), mapping={"status": "completed", "result": "{broken"})
    with pytest.raises(JobqdError, match="not JSON"):
        await queue.job("odd").result()


async def test_progress_is_seen_live_and_ends_with_the_job(queue, worker, raw):
    handle = await queue.enqueue("mail")
    job = await worker.claim()
    updates = handle.updates()
    assert await anext(updates) == Progress("processing")
    following = asyncio.create_task(anext(updates))
    await listened(raw, queue, handle.id)
    await worker.progress(job, 67, "encoding")
    async with asyncio.timeout(1.5):
        assert await following == Progress("processing", 67.0, "encoding", 3.0)
        assert await handle.progress() == Progress("processing", 67.0, "encoding", 3.0)
        await worker.settle(job, "completed", result="null")
        assert [update async for update in updates] == [Progress("completed", 67.0, "encoding", 3.0)]
    assert not queue._listener.channels


async def test_rubbish_on_the_channel_disturbs_nobody(queue, worker, raw):
    handle = await queue.enqueue("mail")
    job = await worker.claim()
    updates = handle.updates()
    await anext(updates)
    following = asyncio.create_task(anext(updates))
    await listened(raw, queue, handle.id)
    for rubbish in ("{", "[1]", "7", '{"progress": "x", "status": 3}', b"\xff\xfe"):
        await raw.publish(queue.keys.progress(handle.id), rubbish)
    await worker.progress(job, 5, "")
    async with asyncio.timeout(1.5):
        while (update := await following).percent != 5.0:
            following = asyncio.create_task(anext(updates))
    assert update == Progress("processing", 5.0, None, 3.0)
    await updates.aclose()


async def test_all_waiters_share_one_connection(queue, worker, raw):
    handles = [await queue.enqueue("mail") for _ in range(5)]
    waiting = [asyncio.create_task(handle.result(30)) for handle in (*handles, *handles)]
    for handle in handles:
        await listened(raw, queue, handle.id)
    assert len(await raw.client_list(_type="pubsub")) == 1
    for _ in handles:
        await worker.settle(await worker.claim(), "completed", result="0")
    async with asyncio.timeout(1.5):
        assert await asyncio.gather(*waiting) == [0] * 10


async def test_a_listener_that_joins_again_is_told_to_look(target, raw):
    listener = Listener(target)
    first = listener.subscribe("c")
    assert await first.next(5) is None
    first.close()
    second = listener.subscribe("c")
    async with asyncio.timeout(1.5):
        assert await second.next(5) is None
    await raw.publish("c", "hello")
    assert await second.next(5) == "hello"
    await listener.close()


async def test_a_waiter_that_does_not_keep_up_is_told_to_look(target):
    listener = Listener(target)
    subscription = listener.subscribe("c")
    for number in range(1001):
        subscription.put(str(number))
    assert await subscription.next(1) is None
    await listener.close()


async def test_cancel_tells_about_each(queue, worker):
    running_job, waiting_job = await queue.enqueue("mail"), await queue.enqueue("mail")
    await worker.claim()
    assert await queue.cancel([running_job.id, waiting_job.id, "nope"]) == {
        running_job.id: "cancelled", waiting_job.id: "removed", "nope": "gone",
    }  # fmt: skip


async def test_dead_letters_get_a_new_chance(queue, worker):
    handle = await queue.enqueue("mail")
    await worker.settle(await worker.claim(), "dead", error="x")
    assert await queue.retry_dead([handle.id, "nope"]) == {handle.id: "retried", "nope": "gone"}
    assert await handle.status() == "queued"


async def test_everything_about_a_job_is_told(queue, worker, keys, raw):
    await queue.enqueue("film", priority=-1)
    handle = await queue.enqueue("mail", {"n": 1}, priority=5)
    await raw.hset(keys.job(handle.id), mapping={"user_id": "7", "_internal": "x"})
    info = await handle.info()
    assert (info.place, info.ahead, info.priority, info.own_fields) == ("ready", 1, 5, {"user_id": "7"})
    job = await worker.claim()
    await worker.settle(job, "completed", result="[1]")
    info = await handle.info()
    assert (info.status, info.attempts, info.result, info.place) == ("completed", 1, [1], "")
    assert 98 < info.ttl <= 100
    assert info.started_at <= info.finished_at <= info.seen_at
    held = (await queue.run(reading.listing(keys, status="held"))).jobs[0]
    assert (held.type, held.place, held.held) == ("film", "held", "type:film")


async def test_lists_are_by_status_and_type(queue, worker, keys):
    ids = {}
    for name in ("dead", "done", "running", "waiting"):
        ids[name] = (await queue.enqueue("mail")).id
    ids["film"] = (await queue.enqueue("film", priority=1)).id
    ids["later"] = (await queue.enqueue("mail", delay=60)).id
    await worker.settle(await worker.claim(), "dead", error="x")
    await worker.settle(await worker.claim(), "completed", result="1")
    await worker.claim()

    async def listed(**options) -> list[str]:
        found = await queue.run(reading.listing(keys, **options))
        return [job.id for job in found.jobs]

    assert await listed(status="failed") == [ids["dead"]]
    assert await listed(status="completed") == [ids["done"]]
    assert await listed(status="processing") == [ids["running"]]
    assert await listed(status="queued") == [ids["waiting"], ids["film"]]
    assert await listed(status="scheduled") == [ids["later"]]
    assert await listed(job_type="film") == [ids["film"]]
    assert set(await listed()) == set(ids.values())
    assert len(await listed(limit=2)) == 2


async def test_a_rare_type_is_found_behind_many(queue, keys):
    await queue.enqueue_many([JobSpec("mail") for _ in range(450)])
    rare = await queue.enqueue("film")
    found = await queue.run(reading.listing(keys, job_type="film", limit=1))
    assert ([job.id for job in found.jobs], found.more) == ([rare.id], False)


async def test_stats_count_every_index_and_name_the_daemons(queue, worker, keys, raw):
    await raw.zadd(keys.ready, {"plain": 3})
    now = [JobSpec("mail", priority=0), JobSpec("mail", priority=0), JobSpec("film", priority=-1)]
    await queue.enqueue_many([*now, JobSpec("mail", delay=9)])
    await worker.claim()
    about = {"instance": "a", "host": "h", "pid": 7, "concurrency": 4, "types": '["mail"]', "started_at": 1.5}
    await worker.link.run(running.beat(worker.seat, about, []))
    await raw.hset(keys.daemon("w2"), mapping={"types": "{", "pid": "x"})
    await raw.zadd(keys.daemons, {"w2": 9e9, "w3": 9e9, "old": 1})
    stats = await queue.run(counting.stats(keys))
    assert (stats.ready, stats.active, stats.scheduled, stats.held, stats.dead) == (2, 1, 1, {"type:film": 1}, 0)
    assert [(level.priority, level.jobs) for level in stats.levels] == [(0, 1), (3, 1)]
    assert 0 <= stats.oldest < 60
    assert stats.levels[1].waiting is None
    assert stats.counters["entered"] == 2
    assert [(daemon.worker, daemon.types, daemon.pid) for daemon in stats.daemons] == [
        ("w1", ("mail",), 7),
        ("w2", (), 0),
    ]


async def test_foreign_keys_and_bytes_break_nothing(queue, keys, raw):
    await raw.set(keys.held, "text")
    await raw.set(keys.dead, "text")
    await raw.set(keys.daemons, "text")
    await raw.rpush(keys.job("list"), "x")
    await raw.hset(keys.job("bytes"), mapping={"status": b"\xff\x1b", "type": b"\xfe", "_history": "{\n[1]\n"})
    await raw.zadd(keys.ready, {"list": 1, "bytes": 2, "none": 3, "infinite": "inf"})
    found = await queue.run(reading.listing(keys))
    assert [job.id for job in found.jobs] == ["bytes"]
    assert found.jobs[0].history == []
    stats = await queue.run(counting.stats(keys))
    assert set(stats.foreign) == {keys.held, keys.dead, keys.daemons}
    with pytest.raises(JobNotFound):
        await queue.job("list").info()


async def test_the_sync_client_does_the_same(sync_queue, worker):
    handle = sync_queue.enqueue("mail", {"n": 1})
    assert (handle.created, handle.status(), handle.info().payload) == (True, "queued", {"n": 1})
    job = await worker.claim()
    await worker.progress(job, 10, "x")
    assert handle.progress() == Progress("processing", 10.0, "x", 3.0)
    waiting = asyncio.create_task(asyncio.to_thread(handle.result, "10s"))
    updates = asyncio.create_task(asyncio.to_thread(lambda: [update.status for update in handle.updates()]))
    await worker.settle(job, "completed", result='"done"')
    assert await waiting == "done"
    assert (await updates)[-1] == "completed"
    other = sync_queue.enqueue("mail")
    assert other.cancel()
    with pytest.raises(JobCancelled):
        other.result()
    with pytest.raises(ResultTimeout):
        sync_queue.enqueue("mail").result(0)


def test_the_sync_client_serves_many_threads(sync_queue):
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend(sync_queue.enqueue("mail").id for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 200
    assert {sync_queue.job(job_id).status() for job_id in ids} == {"queued"}


def test_the_sync_client_survives_a_fork(sync_queue):
    sync_queue.enqueue("mail")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, "".join(sync_queue.enqueue("mail").id for _ in range(20)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    mine = [sync_queue.enqueue("mail").id for _ in range(20)]
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    theirs = [text[at : at + 36] for at in range(0, len(text), 36)]
    assert len({*mine, *theirs}) == 40
    assert {sync_queue.job(job_id).status() for job_id in (*mine, *theirs)} == {"queued"}


def test_from_env_reads_what_the_daemon_reads(redis_server, keys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobqd.toml").write_text(f'redis_url = "{redis_server.url}"\nmax_payload = 64\n')
    monkeypatch.setenv("JOBQD_KEY_PREFIX", keys.prefix)
    with SyncQueue.from_env() as queue:
        assert queue.enqueue("mail").status() == "queued"
        assert queue.keys.prefix == keys.prefix
        with pytest.raises(PayloadError, match="64B"):
            queue.enqueue("mail", {"text": "x" * 64})


LOADED = "import sys, jobqd; jobqd.{name}; print(*sys.modules)"


@pytest.mark.parametrize(
    ("name", "needs", "avoids"),
    [
        (
            "SyncQueue",
            "jobqd.client",
            ("jobqd.handlers", "jobqd.settings", "jobqd.app", "pydantic", "typer", "structlog"),
        ),
        ("Handlers", "jobqd.handlers", ("jobqd.client", "redis", "typer")),
        ("Job", "jobqd.job", ("jobqd.client", "redis")),
        ("Retry", "jobqd.errors", ("jobqd.client", "redis", "jobqd.handlers", "asyncio")),
    ],
)
def test_a_public_name_loads_only_what_it_needs(name, needs, avoids):
    command = [sys.executable, "-c", LOADED.format(name=name)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    loaded = set(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split())
    assert needs in loaded
    assert not loaded & set(avoids)
