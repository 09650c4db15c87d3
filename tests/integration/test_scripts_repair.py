"""Repair, tidy and purge: what an operator's scripts put right, and what they leave alone."""

from __future__ import annotations

import pytest

from jobqd.client import repairing
from jobqd.client.procedure import run_sync
from jobqd.errors import StoreError, StoreFault
from jobqd.store import repairing as calls
from jobqd.store.call import Call
from jobqd.store.producing import NewJob
from tests.property.faulty import INJECTED, failing_at
from tests.redis_server import RedisServer
from tests.support.lab import DAY, Lab


def repair(lab: Lab, *, dry: bool = False, patience: float = 60.0) -> list[tuple[str, str]]:
    findings = run_sync(repairing.repair(lab.keys, dry=dry, patience=patience, job_ttl=DAY), lab.link)
    return sorted((finding.what, finding.id) for finding in findings)


def letters(lab: Lab, *ids: str) -> list[repairing.Letter]:
    return run_sync(repairing.letters(lab.keys, ids or None), lab.link)


def purge(lab: Lab, doomed: list[repairing.Letter]) -> dict[str, str]:
    return run_sync(repairing.purge(lab.keys, doomed), lab.link)


def bury(lab: Lab, *names: str) -> None:
    for name in names:
        lab.end(lab.leased(name), "dead")


def ages_ago(lab: Lab, seconds: float) -> str:
    return f"{lab.now() - seconds:.6f}"


# Repair


def test_a_healthy_queue_is_left_as_it_is(lab: Lab) -> None:
    bury(lab, "dead")
    lab.end(lab.leased("done"))
    lab.leased("runs")
    lab.enqueue(NewJob("waits", 5, {"type": "mail"}), NewJob("later", 5, {"type": "mail"}, delay=100))
    lab.put("held", "film")
    lab.claim(want=1, types={})
    lab.raw.hset(lab.keys.job("foreign"), mapping={"status": "queued"})
    lab.raw.set(lab.keys.job("text"), "queued")
    lab.zadd("nobody")
    lab.claim(want=1)
    before = lab.snapshot()
    assert repair(lab) == []
    assert lab.snapshot() == before


@pytest.mark.parametrize("status", ["queued", "scheduled"])
def test_an_enqueue_that_was_never_finished_is_finished(lab: Lab, status: str) -> None:
    lab.hset("X", created_at=ages_ago(lab, 61), priority="7")
    lab.set("X", status=status)
    before = lab.snapshot()
    assert repair(lab, dry=True) == [("enqueued", "X")]
    assert lab.snapshot() == before
    assert repair(lab) == [("enqueued", "X")]
    assert (lab.status("X"), lab.where("X")) == ("queued", ["ready"])
    assert 7.1 < lab.raw.zscore(lab.keys.ready, "X") < 8
    assert repair(lab) == []
    assert lab.claim_ids() == ["X"]
    assert lab.counters()["entered"] == 1


def test_an_enqueue_between_its_two_commands_is_left_alone(lab: Lab) -> None:
    lab.hset("X", created_at=ages_ago(lab, 5))
    lab.hset("js", created_at=str(int((lab.now() - 5) * 1000)))
    assert repair(lab) == []
    assert repair(lab, patience=1.0) == [("enqueued", "X"), ("enqueued", "js")]


def test_a_forged_due_time_proves_no_enqueue(lab: Lab) -> None:
    lab.hset("X", _due_at="123")
    assert repair(lab, dry=True) == [("enqueued", "X")]


def test_a_new_enqueue_of_an_ended_id_is_finished_and_begins_anew(lab: Lab) -> None:
    bury(lab, "X")
    lab.hset("X")
    assert repair(lab) == [("enqueued", "X"), ("unlisted", "X")]
    assert (lab.ttl("X"), lab.dead()) == (-1, [])
    assert lab.claim_one().attempts == 0


@pytest.mark.parametrize("status", ["processing", "queued", "retrying", "scheduled"])
def test_a_job_in_no_index_is_put_back(lab: Lab, status: str) -> None:
    lab.leased("X", priority="7")
    lab.raw.zrem(lab.keys.active, "X")
    lab.set("X", status=status, held="type:film")
    assert repair(lab, dry=True) == [("restored", "X")]
    assert repair(lab) == [("restored", "X")]
    job = lab.job("X")
    assert (job["status"], job.get("worker"), job.get("held")) == ("queued", None, None)
    assert (lab.where("X"), lab.raw.zscore(lab.keys.ready, "X")) == (["ready"], 10.0)


def test_a_late_result_of_a_job_that_was_put_back_is_refused(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.raw.zrem(lab.keys.active, "X")
    repair(lab)
    assert lab.end(claimed) == "stale"


def test_times_to_live_are_put_right(lab: Lab) -> None:
    lab.end(lab.leased("done"))
    lab.raw.persist(lab.keys.job("done"))
    lab.put("waits")
    lab.raw.expire(lab.keys.job("waits"), 100)
    assert repair(lab, dry=True) == [("persisted", "waits"), ("ttl", "done")]
    assert (lab.ttl("done"), lab.ttl("waits")) == (-1, 100)
    repair(lab)
    assert (lab.ttl("done"), lab.ttl("waits")) == (DAY, -1)


def test_a_held_set_that_nobody_would_look_into_is_named_again(lab: Lab) -> None:
    lab.put("X", "film")
    lab.claim()
    lab.raw.srem(lab.keys.held, "type:film")
    assert repair(lab) == [("named", "X")]
    assert lab.raw.smembers(lab.keys.held) == {"type:film"}


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "held", "missing"])
def test_a_key_of_a_wrong_type_stops_a_repair_before_it_writes(lab: Lab, name: str) -> None:
    lab.hset("X", created_at="1")
    key = lab.keys.held_for("missing") if name == "missing" else getattr(lab.keys, name)
    lab.raw.set(key, "other")
    before = lab.snapshot()
    with pytest.raises(StoreError) as raised:
        repair(lab)
    assert raised.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


def test_more_jobs_than_one_call_takes_are_all_looked_at(lab: Lab) -> None:
    pipe = lab.raw.pipeline(transaction=False)
    for number in range(1203):
        pipe.hset(lab.keys.job(f"{number}"), mapping={"status": "queued", "type": "mail"})
        pipe.rpush(lab.keys.dead, f"gone-{number}")
        pipe.zadd(lab.keys.held_for("type:x"), {f"gone-{number}": number})
    pipe.sadd(lab.keys.held, "type:x")
    pipe.execute()
    assert len(repair(lab, dry=True)) == 3 * 1203
    assert len(repair(lab)) == 3 * 1203 + 1
    assert (lab.raw.zcard(lab.keys.ready), lab.dead(), lab.raw.exists(lab.keys.held)) == (1203, [], 0)


# Tidy


def test_only_dead_letters_stay_in_their_list(lab: Lab) -> None:
    bury(lab, "dead", "gone", "again")
    lab.raw.delete(lab.keys.job("gone"), lab.keys.job("again"))
    lab.put("again")
    lab.raw.rpush(lab.keys.dead, "again")
    assert repair(lab, dry=True) == [("unlisted", "again"), ("unlisted", "gone")]
    assert lab.dead() == ["again", "gone", "dead", "again"]
    repair(lab)
    assert lab.dead() == ["dead"]
    lab.end(lab.claim_one(), "dead")
    assert lab.dead() == ["again", "dead"]


def test_held_ids_without_a_job_and_names_of_empty_sets_go(lab: Lab) -> None:
    lab.put("X", "film")
    lab.put("gone", "film")
    lab.put("song", "song")
    lab.claim()
    lab.raw.delete(lab.keys.job("gone"), lab.keys.job("song"))
    lab.raw.sadd(lab.keys.held, "type:empty")
    expected = [("unheld", "gone"), ("unheld", "song"), ("unnamed", "type:empty")]
    assert repair(lab, dry=True) == expected
    assert lab.raw.scard(lab.keys.held) == 3
    assert repair(lab) == [*expected, ("unnamed", "type:song")]
    assert lab.raw.smembers(lab.keys.held) == {"type:film"}
    assert lab.claim_ids(types={"film": -1}) == ["X"]


def test_ids_that_wait_for_their_hash_are_not_touched(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    assert repair(lab) == []
    lab.hset("X")
    lab.raw.zadd(lab.keys.missing, {"X": 1})
    lab.promote()
    assert lab.claim_ids() == ["X"]


# Purge


def test_a_purge_deletes_dead_letters_for_good(lab: Lab) -> None:
    bury(lab, "a", "b", "c")
    assert [(letter.id, letter.type, letter.dead) for letter in letters(lab)] == [
        ("c", "mail", True), ("b", "mail", True), ("a", "mail", True),
    ]  # fmt: skip
    assert purge(lab, letters(lab, "a", "c", "nobody")) == {"a": "purged", "c": "purged"}
    assert (lab.dead(), lab.job("a"), lab.status("b")) == (["b"], {}, "failed")


def test_a_purge_that_races_with_a_retry_loses_nothing(lab: Lab) -> None:
    bury(lab, "a", "b", "c", "d")
    seen = letters(lab)
    lab.dead_retry("a", "b", "c")
    lab.end(lab.claim_one(), "dead")
    claimed = lab.claim_one()
    assert purge(lab, seen) == {"a": "changed", "b": "processing", "c": "queued", "d": "purged"}
    assert lab.end(claimed) == "ok"
    assert lab.claim_ids() == ["c"]
    assert lab.dead() == ["a"]
    assert lab.dead_retry("d") == ["gone"]


def test_a_purge_spares_an_id_that_is_on_its_way_back(lab: Lab) -> None:
    bury(lab, "X")
    seen = letters(lab)
    lab.zadd("X")
    assert purge(lab, seen) == {"X": "changed"}
    lab.raw.zrem(lab.keys.ready, "X")
    lab.put("X")
    assert purge(lab, seen) == {"X": "queued"}
    assert lab.claim_ids() == ["X"]


def test_a_purge_sent_twice_and_an_id_twice(lab: Lab) -> None:
    bury(lab, "X")
    seen = letters(lab)
    assert lab.run(calls.purge(lab.keys, [("X", seen[0].finished_at)] * 2)) == ["purged", "gone"]
    assert purge(lab, seen) == {"X": "gone"}


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "dead"])
def test_a_key_of_a_wrong_type_stops_a_purge_before_it_writes(lab: Lab, name: str) -> None:
    bury(lab, "X")
    seen = letters(lab)
    lab.raw.delete(getattr(lab.keys, name))
    lab.raw.set(getattr(lab.keys, name), "other")
    with pytest.raises(StoreError) as raised:
        purge(lab, seen)
    assert raised.value.fault is StoreFault.WRONGTYPE
    assert lab.status("X") == "failed"


def test_a_purge_of_more_than_one_call_takes(lab: Lab) -> None:
    names = [f"{number:03}" for number in range(250)]
    bury(lab, *names)
    assert set(purge(lab, letters(lab)).values()) == {"purged"}
    assert lab.raw.exists(lab.keys.dead) == 0


# Errors inside the scripts, and a full server


def mess(lab: Lab) -> None:
    """Leave one of everything that repair and tidy put right, two dead letters and a job that is well."""
    bury(lab, "dead", "older", "gone")
    lab.raw.delete(lab.keys.job("gone"))
    lab.leased("restored")
    lab.raw.zrem(lab.keys.active, "restored")
    lab.hset("enqueued", created_at="1")
    lab.put("held", "film")
    lab.claim()
    lab.raw.srem(lab.keys.held, "type:film")
    lab.put("waits", score=99)
    lab.raw.expire(lab.keys.job("waits"), 100)


def call_of(lab: Lab, name: str) -> Call[object]:
    if name == "repair":
        ids = ["restored", "enqueued", "held", "waits", "dead"]
        return calls.repair(lab.keys, ids, dry=False, patience=1.0, job_ttl=DAY)
    if name == "tidy":
        return calls.tidy(lab.keys, "", lab.dead(), dry=False)
    return calls.purge(lab.keys, [(letter.id, letter.finished_at) for letter in letters(lab, "dead", "older")])


@pytest.mark.parametrize("name", ["repair", "tidy", "purge"])
def test_an_error_at_any_call_loses_nothing_and_the_next_time_mends_the_rest(lab: Lab, name: str) -> None:
    failed = True
    for number in range(1, 100):
        lab.raw.flushall()
        lab.numbers.clear()
        mess(lab)
        call = call_of(lab, name)
        try:
            lab.run(failing_at(call, number))
            failed = False
        except StoreError as error:
            if INJECTED not in str(error):
                raise
        lab.run(call)
        run_sync(repairing.repair(lab.keys, dry=False, patience=1.0, job_ttl=DAY), lab.link)
        expected = {"enqueued", "held", "restored", "waits"}
        assert set(lab.claim_ids(types={"mail": -1, "film": -1})) == expected, number
        assert set(lab.dead()) == (set() if name == "purge" else {"dead", "older"}), number
        if not failed and number > 20:
            break
    assert not failed


def test_a_full_redis_can_be_repaired_and_purged(redis_server: RedisServer, lab: Lab) -> None:
    with RedisServer(redis_server.binary) as server:
        full = Lab(server.url, lab.keys)
        try:
            mess(full)
            orders = [call_of(full, name) for name in ("repair", "tidy", "purge")]
            for order in orders:
                full.raw.config_set("maxmemory", max(1, full.raw.info("memory")["used_memory"] // 2))
                full.run(order)
            full.raw.config_set("maxmemory", 0)
            assert (full.dead(), full.where("restored")) == ([], ["ready"])
        finally:
            full.close()
