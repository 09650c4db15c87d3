"""A daemon that is killed or frozen: its jobs run again, soon and once, and no attempt is spent."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.waiting import eventually, within
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("film", job.id, job.fence)
    await ledger.gate("film")
    return {"by": os.getpid()}

@handlers.job("deadly")
async def deadly(job: Job):
    ledger.note("deadly", job.fence)
    if job.fence == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@handlers.job("exits_in_a_task", max_attempts=1)
async def exits_in_a_task():
    async def library():
        sys.exit(0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(library())

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


def test_a_restarted_daemon_takes_its_dead_predecessors_jobs_back_at_once(place: Workshop) -> None:
    first, producer = place.start(lease="60s"), place.producer
    producer.put("film", "film")
    producer.put("not ours", "film")
    place.ledger.wait_for("film film 1")
    place.ledger.wait_for("film not ours 1")
    producer.redis.hset("job:not ours", "worker", "another daemon")
    first.kill()
    second = place.start(lease="60s")
    place.ledger.wait_for("film film 2")
    second.wait_for("daemon.took_back", count=1)
    running = producer.job("film")
    assert (running["crashes"], running.get("attempts")) == ("1", None)
    place.ledger.open("film")
    job = producer.wait("film")
    assert (job["status"], job["attempts"], job["crashes"]) == ("completed", "1", "1")
    assert json.loads(job["_history"])["error"] == "its daemon died"
    # What another daemon holds is not the successor's to take.
    assert producer.status("not ours") == "processing"
    assert producer.field("not ours", "worker") == "another daemon"
    assert producer.field("not ours", "fence") == "1"


def test_jobs_run_again_within_two_seconds_of_a_kill(place: Workshop) -> None:
    jobs = iter("abc")
    place.start()

    def seconds() -> float:
        job_id = place.producer.put(next(jobs), "film")
        place.ledger.wait_for(f"film {job_id} 1")
        killed = time.monotonic()
        place.daemons[-1].kill()
        place.start()
        place.ledger.wait_for(f"film {job_id} 2")
        return time.monotonic() - killed

    within(2, seconds)


def test_a_clean_stop_leaves_nothing_to_take_back(place: Workshop) -> None:
    first = place.start()
    worker = first.wait_for("daemon.starting")["worker"]
    assert first.stop() == 0
    (lock,) = (place.application.directory / "run").glob("*.lock")
    assert worker not in lock.read_text()


def test_the_jobs_own_kill_of_its_daemon_counts_as_a_crash(place: Workshop) -> None:
    first, producer = place.start(), place.producer
    producer.put("deadly", "deadly")
    assert first.wait() == -signal.SIGKILL
    place.start()
    job = producer.wait("deadly")
    assert (job["status"], job["attempts"], job["crashes"]) == ("completed", "1", "1")


def test_two_daemons_of_one_instance_do_not_run_together(place: Workshop) -> None:
    place.start()
    second = place.daemon().start(ready=False)
    assert second.wait() == 78
    assert "--instance" in second.log
    assert "Traceback" not in second.log
    other = place.start("--instance", "b")
    assert other.stop() == 0


def test_another_daemon_takes_over_when_the_lease_has_run_out(place: Workshop) -> None:
    producer = place.producer
    first = place.start("--instance", "a", lease="500ms")
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    second = place.start("--instance", "b", lease="500ms")
    first.kill()
    place.ledger.wait_for("film film 2")
    second.wait_for("job.recovered", job_id="film", reason="its lease ran out", crashes=1)
    place.ledger.open("film")
    job = producer.wait("film")
    assert (job["status"], job["attempts"], job["crashes"]) == ("completed", "1", "1")


def test_a_daemon_that_was_frozen_beyond_its_lease_completes_nothing_twice(place: Workshop) -> None:
    producer = place.producer
    first = place.start("--instance", "a", lease="500ms")
    producer.put("film", "film")
    place.ledger.wait_for("film film 1")
    second = place.start("--instance", "b", lease="500ms")
    first.signal(signal.SIGSTOP)
    place.ledger.wait_for("film film 2")
    place.ledger.open("film")
    job = producer.wait("film")
    first.signal(signal.SIGCONT)
    eventually(lambda: first.of("job.refused", job_id="film", fence=1) or first.of("job.lost", job_id="film", fence=1))
    assert json.loads(job["result"]) == {"by": second.pid}
    after = producer.job("film")
    assert (after["result"], after["attempts"], after["fence"]) == (job["result"], "1", "2")
    assert producer.redis.hget("job_queue:counters", "completed") == "1"


def test_a_job_cannot_end_its_daemon_by_sys_exit_in_a_task_of_its_own(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("exits", "exits_in_a_task")
    eventually(lambda: producer.status("exits") == "failed" or daemon.ended, "the failure of the job")
    assert not daemon.ended
    assert producer.run("next", "quick")["status"] == "completed"
