"""A handler that blocks the event loop: nobody loses a lease, and the log names it."""

from __future__ import annotations

from pathlib import Path

from tests.support.servers import newest_server
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
