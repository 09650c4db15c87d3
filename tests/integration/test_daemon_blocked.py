"""A handler that blocks the event loop: nobody loses a lease, and the log names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import alive
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("film", job.fence)
    await ledger.gate("film")

@handlers.job("blocks")
async def blocks(job: Job):
    ledger.note("blocks", job.fence)
    a_function_that_blocks()

def a_function_that_blocks():
    ledger.gate_in_thread("blocks")

async def part(job: Job):
    ledger.note("blocks", job.fence)
    a_function_that_blocks()

@handlers.job("wait_for")
async def in_wait_for(job: Job):
    await asyncio.wait_for(part(job), 60)

@handlers.job("group")
async def in_group(job: Job):
    async with asyncio.TaskGroup() as group:
        group.create_task(part(job))

@handlers.job("later")
async def in_callback(job: Job):
    asyncio.get_running_loop().call_later(0, a_function_that_blocks)
    await ledger.gate("film")

@handlers.job("thread")
def in_thread(job: SyncJob):
    ledger.note("film", job.fence)
    ledger.gate_in_thread("film")

@handlers.job("encodes")
async def encodes(job: Job):
    script = 'trap "" TERM; echo $$; while :; do sleep 0.05; done'
    async for line in job.exec("sh", "-c", script, kill_after="1m"):
        ledger.note("film", line)
"""


def test_a_blocked_loop_costs_nobody_a_lease_and_is_named(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        producer = place.producer
        blocked = place.start("--instance", "a", lease="500ms")
        producer.put("film", "film")
        place.ledger.wait_for("film 1")
        producer.put("blocker", "blocks")
        place.ledger.wait_for("blocks 1")
        # It would take the leases over if they ran out.
        other = place.start("--instance", "b", lease="500ms")
        record = blocked.wait_for("loop.blocked")
        assert record.items() >= {"level": "error", "job_id": "blocker", "job_type": "blocks", "fence": 1}.items()
        assert "a_function_that_blocks" in record["stack"]
        assert record["duration"] >= 1
        # A lease that did run out shows that it looks.
        decoy = {"status": "processing", "type": "none", "worker": "nobody", "fence": 1}
        producer.redis.hset("job:decoy", mapping=decoy)
        producer.redis.zadd("job_queue:active", {"decoy": 1})
        other.wait_for("job.recovered", job_id="decoy")
        place.ledger.open("blocks")
        assert producer.wait("blocker")["status"] == "completed"
        assert blocked.wait_for("loop.unblocked")["duration"] >= 1
        place.ledger.open("film")
        job = producer.wait("film")
        assert (job["fence"], job["attempts"], job.get("crashes")) == ("1", "1", None)
        assert [record["job_id"] for record in other.of("job.recovered")] == ["decoy"]
        assert place.ledger.lines() == ["film 1", "blocks 1"]


def test_past_the_limit_the_blocker_is_charged_and_the_others_are_handed_back(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        producer = place.producer
        daemon = place.start(block_limit="1s")
        producer.put("film", "film")
        place.ledger.wait_for("film 1")
        producer.put("blocker", "blocks")
        assert daemon.wait() == 70
        record = daemon.wait_for("loop.gave_up")
        assert record.items() >= {"level": "critical", "job_id": "blocker", "count": 2}.items()
        film, blocker = producer.job("film"), producer.job("blocker")
        assert (film["status"], film["interruptions"], film.get("crashes")) == ("queued", "1", None)
        assert (blocker["status"], blocker["crashes"], blocker.get("attempts")) == ("queued", "1", None)
        assert "block_limit" in blocker["_history"]
        assert producer.redis.zcard("job_queue:active") == 0


@pytest.mark.parametrize("job_type", ["wait_for", "group"])
def test_a_task_of_a_handler_blocks_in_its_name(tmp_path: Path, job_type: str) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        producer = place.producer
        daemon = place.start(block_limit="1s")
        producer.put("film", "film")
        place.ledger.wait_for("film 1")
        producer.put("blocker", job_type)
        assert daemon.wait() == 70
        assert daemon.wait_for("loop.gave_up")["job_id"] == "blocker"
        assert (producer.job("film").get("crashes"), producer.job("blocker").get("crashes")) == (None, "1")


def test_where_nobody_can_be_named_all_that_may_block_are_charged_and_nobody_is_convicted(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        producer = place.producer
        producer.put("film", "film")
        producer.put("apart", "thread")
        for death in (1, 2):
            daemon = place.start(block_limit="1s", retry_delay="0s")
            eventually(lambda lines=2 * death: len(place.ledger.lines("film")) == lines)
            if death == 1:
                producer.put("blocker", "later", score=20)
            assert daemon.wait() == 70
            assert daemon.wait_for("loop.gave_up")["job_id"] is None
        job = producer.job("apart")
        assert (job["interruptions"], job.get("crashes")) == ("2", None)
        # As suspects they run alone: the film is cleared, and the other is found out.
        daemon = place.start(block_limit="1s", timeout="1s", retry_delay="0s")
        place.ledger.open("film")
        assert [producer.wait(name)["status"] for name in ("film", "apart")] == ["completed"] * 2
        blocker = producer.wait("blocker", timeout=20)
        assert (blocker["status"], blocker["error_type"]) == ("failed", "Crashed")


def test_no_program_outlives_the_surrender_of_its_job(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        producer = place.producer
        daemon = place.start(block_limit="1s")
        producer.put("film", "encodes")
        (line,) = eventually(lambda: place.ledger.lines("film"))
        producer.put("blocker", "blocks")
        daemon.wait_for("loop.gave_up")
        # It is told after the programs were ended and before the process is.
        assert not alive(int(line.split()[-1]))
        assert daemon.wait() == 70
