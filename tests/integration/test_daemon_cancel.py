"""Cancelling a job that runs: at once by the control message, without it by the next renewal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.keys import Keys
from jobqd.store import SyncLink, Target, producing
from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("long")
async def long(job: Job):
    ledger.note("started", job.id)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ledger.note("cancelled", job.id)
        await ledger.gate(f"cleanup-{job.id}")
        ledger.note("cleaned", job.id)
        raise

@handlers.job("returns_anyway")
async def returns_anyway(job: Job):
    ledger.note("started", job.id)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "too late"

@handlers.job("quick")
async def quick(): pass
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.producer.redis.flushall()


def cancel(place: Workshop, job_id: str, keys: Keys | None = None) -> None:
    """Cancel as our clients do; with other `keys`, whose control channel nobody listens to."""
    link = SyncLink(Target(place.server.url))
    answers = link.run(producing.cancel(keys or place.producer.keys, [job_id], job_ttl=60.0))
    link.close()
    assert answers == ["cancelled"]


def test_a_control_message_ends_the_run_long_before_the_next_renewal(place: Workshop) -> None:
    daemon, producer = place.start(concurrency=1, lease="60s"), place.producer
    producer.put("film", "long")
    place.ledger.wait_for("started film")
    cancel(place, "film")
    place.ledger.wait_for("cancelled film")
    assert producer.status("film") == "cancelled"
    # The only worker stays busy until the handler has ended.
    producer.put("next", "quick")
    eventually(lambda: producer.redis.zcard("job_queue") == 1)
    place.ledger.open("cleanup-film")
    assert producer.wait("next")["status"] == "completed"
    assert place.ledger.lines() == ["started film", "cancelled film", "cleaned film"]
    daemon.wait_for("job.cancelled", job_id="film")
    assert producer.status("film") == "cancelled"
    assert "attempts" not in producer.job("film")
    assert 0 < producer.redis.ttl("job:film") <= 60


def test_without_the_message_the_next_renewal_tells(place: Workshop) -> None:
    daemon, producer = place.start(lease="600ms"), place.producer
    producer.put("film", "long")
    place.ledger.wait_for("started film")
    place.ledger.open("cleanup-film")
    deaf = Keys()
    deaf.control = "a channel without listeners"
    cancel(place, "film", deaf)
    place.ledger.wait_for("cleaned film")
    daemon.wait_for("job.cancelled", job_id="film")
    assert producer.status("film") == "cancelled"


def test_a_late_result_is_refused_and_the_job_stays_cancelled(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("film", "returns_anyway")
    place.ledger.wait_for("started film")
    cancel(place, "film")
    daemon.wait_for("job.refused", job_id="film", reason="the job was cancelled meanwhile", outcome="completed")
    job = producer.job("film")
    assert job["status"] == "cancelled"
    assert "result" not in job
    assert producer.redis.zcard("job_queue:active") == 0


def test_a_cancel_message_for_a_job_that_was_not_cancelled_costs_nothing(place: Workshop) -> None:
    """Pub/sub ignores databases, and a message may be late: only Redis's hash says that a job is cancelled."""
    daemon, producer = place.start(), place.producer
    producer.put("film", "long")
    place.ledger.wait_for("started film")
    place.ledger.open("cleanup-film")
    producer.redis.publish("job_queue:control", "cancel film")
    eventually(lambda: place.ledger.lines().count("started film") == 2)
    job = producer.job("film")
    assert (job["status"], job["interruptions"], job.get("crashes")) == ("processing", "1", None)
    assert daemon.of("job.released", job_id="film")
