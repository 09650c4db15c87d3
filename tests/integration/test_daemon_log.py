"""The log of a daemon: one line a run, never what is in it, and no more than a log can bear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("typed")
async def typed(user_id: int, card: str = ""):
    return {"secret": card}

@handlers.job("fails", max_attempts=1)
async def fails(card: str = ""):
    raise ValueError("refused")

@handlers.job("says")
async def says(job: Job):
    job.log.info("halfway", scene=3)

@handlers.job("says_in_thread")
def says_in_thread(job: SyncJob):
    job.log.info("halfway", scene=3)
"""
SECRET = "4111-1111-1111-1111"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.producer.redis.flushall()


def test_one_line_a_run_and_nothing_of_its_payload(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.run("good", "typed", user_id=7, card=SECRET)
    producer.run("bad", "fails", card=SECRET)
    producer.run("unfit", "typed", payload=f'{{"user_id": 7, "card": "{SECRET}"}}', card=SECRET)
    assert daemon.stop() == 0
    completed = daemon.of("job.completed", job_id="good")
    assert len(completed) == 1
    assert completed[0].items() >= {"level": "info", "job_type": "typed", "attempt": 1, "fence": 1}.items()
    assert 0 <= completed[0]["duration"] < 5
    assert 0 <= completed[0]["waited"] < 5
    assert len(daemon.of("job.dead", job_id="bad", level="error")) == 1
    assert [record["event"] for record in daemon.records if record.get("job_id") == "bad"] == ["job.dead"]
    assert SECRET not in daemon.log


@pytest.mark.parametrize("job_type", ["says", "says_in_thread"])
def test_what_a_job_logs_names_the_job(place: Workshop, job_type: str) -> None:
    daemon = place.start()
    place.producer.run("job", job_type)
    line = daemon.wait_for("halfway")
    assert line.items() >= {"job_id": "job", "job_type": job_type, "attempt": 1, "fence": 1, "scene": 3}.items()


def test_a_flood_of_runs_is_sampled_and_the_rest_counted(place: Workshop) -> None:
    producer = place.producer
    pipeline = producer.redis.pipeline(transaction=False)
    for n in range(1500):
        pipeline.hset(f"job:{n}", mapping={"status": "queued", "type": "typed", "user_id": n})
        pipeline.zadd("job_queue", {str(n): 1})
    pipeline.execute()
    daemon = place.start("--burst", concurrency=200)
    assert daemon.wait() == 0
    assert producer.redis.hget("job_queue:counters", "completed") == "1500"
    lines = daemon.of("job.completed")
    seconds = {line["timestamp"][:19] for line in lines}
    # A window of a second may straddle two seconds of the wall clock.
    assert 200 <= len(lines) <= 200 * (len(seconds) + 1)
    assert len(lines) < 1500
    eventually(lambda: len(lines) + sum(line["count"] for line in daemon.of("job.lines_suppressed")) == 1500)
