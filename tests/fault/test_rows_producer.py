"""Faults of producers: the same id many times, in every state."""

from __future__ import annotations

import asyncio

import pytest

from tests.fault.laboratory import Laboratory
from tests.support.waiting import eventually

SAME = "same"


def long(state: str) -> object:
    return pytest.param(state, marks=pytest.mark.long)


def test_row_25_the_same_id_100_times_at_once(lab: Laboratory) -> None:
    lab.start("a")
    lab.start("b")

    async def enqueue() -> list[bool]:
        queues = [lab.queue() for _ in range(20)]
        enqueues = (queues[i % 20].enqueue("effect", {"seconds": 0.2}, id=SAME) for i in range(100))
        handles = await asyncio.gather(*enqueues)
        await asyncio.gather(*(queue.close() for queue in queues))
        return [handle.created for handle in handles]

    created = asyncio.run(enqueue())
    lab.acknowledged.add(SAME)
    lab.wait_ended()
    lab.check("row 25", "one id enqueued 100 times at once by 20 clients, 2 daemons", duplicates=0)
    assert created.count(True) == 1
    assert lab.ledger.count("start") == 1


def again(lab: Laboratory, job_type: str = "first_run_gated") -> None:
    """Enqueue the id as a raw producer does, whatever its state."""
    lab.shop.producer.put(SAME, job_type)
    lab.acknowledged.add(SAME)


@pytest.mark.parametrize("state", [long("queued"), long("scheduled"), "processing", "retrying", long("held")])
def test_row_26_the_same_id_again_while_it_has_not_ended(lab: Laboratory, state: str) -> None:
    job_type = "flaky" if state == "retrying" else "no_handler" if state == "held" else "first_run_gated"
    if state == "scheduled":
        fields = {"status": "scheduled", "type": job_type, "created_at": 1}
        lab.redis.hset(lab.keys.job(SAME), mapping=fields)
        lab.redis.zadd(lab.keys.scheduled, {SAME: 4102444800})
    else:
        again(lab, job_type)
    if state in ("queued", "scheduled"):
        again(lab, job_type)
        lab.start()
    else:
        lab.start(retry_delay="1s")
        wanted = "queued" if state == "held" else state
        eventually(lambda: lab.redis.hget(lab.keys.job(SAME), "status") == wanted, state)
        if state == "held":
            eventually(lambda: lab.redis.hexists(lab.keys.job(SAME), "held"), "held")
        again(lab, "first_run_gated" if state == "held" else job_type)
    lab.gates.open("gate")
    lab.wait_ended()
    books_fail = frozenset({SAME}) if state == "retrying" else frozenset()
    lab.check(f"row 26 while {state}", "HSET and ZADD of the same id", duplicates=0, expected_to_fail=books_fail)
    job = lab.redis.hgetall(lab.keys.job(SAME))
    assert (job["status"], job["attempts"]) == ("completed", "2" if state == "retrying" else "1")
    assert lab.redis.hget(lab.keys.counters, "entered") == "1"


@pytest.mark.parametrize("state", ["completed", long("cancelled"), "failed"])
def test_row_26_the_same_id_again_after_its_end(lab: Laboratory, state: str) -> None:
    again(lab, "hopeless" if state == "failed" else "effect")
    if state == "cancelled":
        asyncio.run(cancel(lab))
    lab.start()
    lab.wait_ended()
    again(lab, "effect")
    eventually(lambda: lab.ledger.count("end") == (2 if state == "completed" else 1), "the run of the new job")
    lab.wait_ended()
    lab.check(
        f"row 26 after {state}", "HSET and ZADD of an id that has ended", duplicates=0, earlier={SAME: [state]},
    )  # fmt: skip
    job = lab.redis.hgetall(lab.keys.job(SAME))
    runs = lab.ledger.count("start")
    assert (job["status"], job["attempts"], job["fence"]) == ("completed", "1", str(runs))
    assert job.keys().isdisjoint({"error", "error_type", "traceback", "_history"})
    assert lab.redis.hget(lab.keys.counters, "entered") == "2"


async def cancel(lab: Laboratory) -> None:
    async with lab.queue() as queue:
        await queue.job(SAME).cancel()
