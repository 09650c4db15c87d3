"""Priorities, and jobs of types that this daemon has no handler for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("note")
async def note(job: Job):
    ledger.note(job.id)

@handlers.job("hold")
async def hold(job: Job):
    ledger.note("holding")
    await ledger.gate("hold")
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place


def test_the_lower_score_runs_first_and_equals_by_their_fraction(place: Workshop) -> None:
    producer = place.producer
    for job_id, score in (("last", 100), ("third", 10.2), ("second", 10.1), ("first", -5), ("before-second", 10)):
        producer.put(job_id, "note", score=score)
    place.start("--burst", concurrency=1).wait()
    assert [line.split()[0] for line in place.ledger.lines()] == ["first", "before-second", "second", "third", "last"]
    assert producer.field("first", "priority") == "-5"
    assert producer.field("second", "priority") == "10"


def test_a_job_without_a_handler_here_is_held_and_runs_where_there_is_one(place: Workshop, tmp_path: Path) -> None:
    producer = place.producer
    old = place.start()
    producer.put("new", "thumbnail", score=3)
    held = producer.wait_field("new", "held", "type:thumbnail")
    assert held["status"] == "queued"
    assert producer.redis.zscore("job_queue:held:type:thumbnail", "new") == 3
    assert producer.redis.smembers("job_queue:held") == {"type:thumbnail"}
    assert producer.run("other", "note")["status"] == "completed"
    assert old.stop() == 0

    (tmp_path / "handlers.py").write_text(
        (tmp_path / "handlers.py").read_text() + "\n@handlers.job('thumbnail')\nasync def thumbnail(): return 'made'\n"
    )
    place.start()
    job = producer.wait("new")
    assert (job["status"], job["attempts"]) == ("completed", "1")
    assert "held" not in job
    assert producer.redis.exists("job_queue:held", "job_queue:held:type:thumbnail") == 0


def test_burst_ends_when_nothing_is_left_that_it_could_do(place: Workshop) -> None:
    producer = place.producer
    producer.put("held", "unknown")
    producer.put("running", "hold")
    producer.put("soon", "note")
    # Due within retry_max_delay: waited for. Due long after: not.
    producer.redis.hset("job:late", mapping={"status": "scheduled", "type": "note"})
    producer.redis.zadd("job_queue:scheduled", {"late": 4e9})
    daemon = place.start("--burst")
    place.ledger.wait_for("holding")
    producer.wait("soon")
    eventually(lambda: producer.field("held", "held") == "type:unknown")
    assert not daemon.of("daemon.draining")
    place.ledger.open("hold")
    assert daemon.wait() == 0, daemon.log
    assert producer.status("running") == "completed"
    assert producer.status("held") == "queued"
    assert producer.status("late") == "scheduled"
    assert "Traceback" not in daemon.log


def test_a_type_that_nobody_handles_is_named_once_with_the_one_that_was_meant(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    for number in range(3):
        producer.put(f"misspelt-{number}", "note_")
        producer.wait_field(f"misspelt-{number}", "held", "type:note_")
    told = daemon.wait_for("type.unhandled")
    assert (told["type"], told["meant"]) == ("note_", "note")
    assert producer.run("next", "note")["status"] == "completed"
    assert len(daemon.of("type.unhandled")) == 1
