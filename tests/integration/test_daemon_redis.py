"""A Redis that is absent, dies, hangs, forgets or refuses: the daemon waits, says so, and loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.keys import Keys
from tests.redis_server import RedisServer
from tests.support.servers import newest_binary
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("film", job.id, job.fence)
    await ledger.gate("film")
    return "done"

@handlers.job("quick")
async def quick(): pass

@handlers.job("outage")
async def outage(job: Job):
    ledger.note("outage", job.id, job.fence)
    await ledger.gate("film")
    await asyncio.sleep(1.5)  # five leases of its daemon
    ledger.note("outage ended")
    return "done"
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer(newest_binary(), "--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.close()


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place


def clients(place: Workshop) -> list[str]:
    """Return the ids of all connections but ours."""
    me = str(place.producer.redis.client_id())
    return [client["id"] for client in place.producer.redis.client_list() if client["id"] != me]


def test_an_absent_redis_is_waited_for(place: Workshop) -> None:
    daemon = place.daemon().start(ready=False)
    away = daemon.wait_for("redis.away", fault="down")
    assert away["level"] == "warning"
    assert away["problem"] == "Redis does not answer"
    assert "r.sock" in away["error"]
    assert not daemon.of("daemon.ready")
    place.server.start()
    daemon.wait_for("daemon.ready")
    daemon.wait_for("redis.back")
    assert len(daemon.of("redis.away")) == 1
    assert place.producer.run("a", "quick")["status"] == "completed"


def test_a_result_that_was_made_while_redis_was_dead_is_accepted(place: Workshop) -> None:
    place.server.start()
    daemon, producer = place.start(lease="500ms"), place.producer
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    place.server.kill()
    daemon.wait_for("redis.away")
    place.ledger.open("film")
    place.server.start()
    job = producer.wait("film")
    assert (job["status"], job["result"], job["attempts"]) == ("completed", '"done"', "1")
    assert "crashes" not in job
    assert "interruptions" not in job
    assert place.ledger.lines("film") == ["film film 1"]
    assert producer.run("next", "quick")["status"] == "completed"
    daemon.wait_for("redis.back")


def test_an_outage_longer_than_a_lease_throws_no_finished_work_away(place: Workshop) -> None:
    place.server.start()
    producer = place.producer
    daemon = place.start("--instance", "a", lease="300ms")
    other = place.start("--instance", "b", lease="300ms")
    producer.put("film", "outage")
    place.ledger.wait_for("outage film 1")
    place.server.freeze()
    place.ledger.open("film")
    place.ledger.wait_for("outage ended")
    place.server.thaw()
    job = producer.wait("film")
    assert (job["status"], job["attempts"], job["fence"]) == ("completed", "1", "1")
    assert "crashes" not in job
    assert producer.redis.hget("job_queue:counters", "completed") == "1"
    assert not daemon.of("job.refused") + other.of("job.recovered")


def test_forgotten_scripts_go_unnoticed(place: Workshop) -> None:
    place.server.start()
    daemon, producer = place.start(), place.producer
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    producer.redis.script_flush()
    place.ledger.open("film")
    assert producer.wait("film")["status"] == "completed"
    producer.redis.script_flush()
    assert producer.run("next", "quick")["status"] == "completed"
    assert not daemon.of("redis.away")


def test_connections_that_are_killed_are_made_again_and_none_is_left_over(place: Workshop) -> None:
    place.server.start()
    daemon, producer = place.start(lease="300ms"), place.producer
    assert producer.run("before", "quick")["status"] == "completed"
    before = len(clients(place))
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    for round_ in range(5):
        for client in clients(place):
            producer.redis.client_kill_filter(_id=client)
        assert producer.run(f"round{round_}", "quick")["status"] == "completed"
    place.ledger.open("film")
    job = producer.wait("film")
    assert (job["status"], job["attempts"], job["fence"]) == ("completed", "1", "1")
    eventually(lambda: len(clients(place)) <= before, f"{len(clients(place))} connections, {before} before")
    assert not daemon.of("job.refused")


def test_a_pause_of_all_writes_is_waited_for(place: Workshop) -> None:
    place.server.start()
    place.start(lease="300ms")
    producer = place.producer
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    # Twice as long as the lease.
    producer.redis.execute_command("CLIENT", "PAUSE", 600, "WRITE")
    place.ledger.open("film")
    job = producer.wait("film")
    assert (job["status"], job["attempts"], job["fence"]) == ("completed", "1", "1")
    assert place.ledger.lines("film") == ["film film 1"]


def test_a_stop_while_redis_is_away_tells_what_was_not_recorded(place: Workshop) -> None:
    place.server.start()
    daemon, producer = place.start(drain_timeout="100ms"), place.producer
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    place.server.kill()
    place.ledger.open("film")
    daemon.wait_for("redis.away")
    assert daemon.stop() == 0, daemon.log
    assert daemon.of("job.not_recorded", job_id="film", outcome="completed", level="error")
    assert "Traceback" not in daemon.log
    # The lock file still names the worker: whoever comes next takes the job back at once.
    place.server.start()
    place.start(lease="60s")
    place.ledger.wait_for("film film 2")
    assert producer.wait("film")["status"] == "completed"


def test_a_redis_that_evicts_jobs_is_refused(place: Workshop) -> None:
    place.server.start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    daemon = place.daemon().start(ready=False)
    assert daemon.wait() == 78
    assert "allkeys-lru" in daemon.log
    assert "allow_eviction" in daemon.log
    assert "Traceback" not in daemon.log
    allowed = place.start(allow_eviction="true")
    assert "allkeys-lru" in allowed.wait_for("redis.warning", subject="eviction")["problem"]


def test_a_second_queue_under_one_prefix_is_refused(place: Workshop) -> None:
    place.server.start()
    place.start()
    second = place.daemon("--instance", "b", queue="other").start(ready=False)
    assert second.wait() == 78
    assert "job_queue" in second.log
    assert "key_prefix" in second.log
    assert "Traceback" not in second.log
    assert place.producer.redis.keys("other*") == []


def test_a_second_queue_under_a_prefix_of_its_own_is_another_world(place: Workshop) -> None:
    place.server.start()
    place.start()
    with workshop(place.server, place.application.directory, HANDLERS, Keys("b:", "other")) as second:
        second.start("--instance", "b", queue="other")
        assert second.producer.run("same id", "quick")["status"] == "completed"
    assert not place.producer.redis.exists("job:same id")


def test_full_redis_lets_what_runs_end(place: Workshop) -> None:
    place.server.start("--maxmemory-policy", "noeviction")
    place.start(lease="300ms")
    producer = place.producer
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    producer.redis.config_set("maxmemory", 1)
    place.ledger.open("film")
    job = producer.wait("film")
    assert json.loads(job["result"]) == "done"
    assert place.server.pid
    producer.redis.config_set("maxmemory", 0)
