"""Claim: who gets which job, in which order, and what becomes of entries that cannot run."""

from __future__ import annotations

import asyncio

import pytest
import redis

from jobqd.errors import StoreError, StoreFault
from jobqd.keys import Keys
from jobqd.scripts import script
from jobqd.store import repairing, running
from jobqd.store.connect import Target
from jobqd.store.producing import NewJob
from jobqd.store.tracking import TrackedLink
from tests.support.lab import DAY, Lab, order

ODD_IDS = ["a\nb\r\n", "{}*?[x]^\\", " ", "\udcff\udc80\x00", "ü" * 50]


# The lease


def test_two_commands_are_enough_and_make_the_job_active(lab: Lab) -> None:
    lab.put("X", source="in.mp4")
    claimed = lab.claim_one("w1")
    assert (claimed.id, claimed.fence, claimed.type, claimed.fields["source"]) == ("X", 1, "mail", "in.mp4")
    assert lab.where("X") == ["active"]
    job = lab.job("X")
    assert (job["status"], job["worker"], job["fence"], job["source"]) == ("processing", "w1", "1", "in.mp4")
    assert abs(float(job["started_at"]) - lab.now()) < 5


def test_a_lease_runs_out_by_the_clock_of_redis(lab: Lab) -> None:
    lab.put("X")
    before = lab.now()
    lab.claim(lease=15)
    assert before + 15 <= lab.raw.zscore(lab.keys.active, "X") <= lab.now() + 15


def test_the_fence_grows_with_every_claim(lab: Lab) -> None:
    first = lab.leased("X")
    lab.end(first, "ready")
    second = lab.claim_one("w2")
    assert (first.fence, second.fence) == (1, 2)
    assert lab.field("X", "worker") == "w2"


def test_a_claim_tells_subscribers(lab: Lab) -> None:
    with lab.raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(lab.keys.progress("X"))
        channel.get_message(timeout=1)
        lab.leased("X")
        message = channel.get_message(timeout=2)
    assert message is not None
    assert message["data"] == '{"status":"processing"}'


def test_a_job_without_a_status_is_queued(lab: Lab) -> None:
    lab.raw.hset(lab.keys.job("X"), "type", "mail")
    lab.zadd("X")
    assert lab.claim_ids() == ["X"]


def test_a_job_without_a_type_is_handed_out_to_fail(lab: Lab) -> None:
    lab.raw.hset(lab.keys.job("X"), "status", "queued")
    lab.zadd("X")
    assert lab.claim_one().type == ""


@pytest.mark.parametrize("forged", ["abc", "-1", "1.5", "1234567890123456", "", " 1", "1e3", "inf", "0x10"])
def test_a_forged_fence_counts_as_nought_and_costs_no_neighbour(lab: Lab, forged: str) -> None:
    lab.put("bad", score=1, fence=forged)
    lab.put("good", score=2)
    claims = lab.claim().jobs
    assert [(job.id, job.fence) for job in claims] == [("bad", 1), ("good", 1)]
    assert [lab.end(job) for job in claims] == ["ok", "ok"]


def test_a_list_in_place_of_a_hash_is_dropped_and_costs_no_neighbour(lab: Lab) -> None:
    lab.raw.lpush(lab.keys.job("list"), "x")
    lab.zadd("list", 1)
    lab.put("good", score=2)
    claims = lab.claim()
    assert [job.id for job in claims.jobs] == ["good"]
    assert claims.dropped == [("list", "not a hash")]
    assert lab.where("list") == []
    assert lab.raw.lrange(lab.keys.job("list"), 0, -1) == ["x"]


@pytest.mark.parametrize("job_id", ODD_IDS)
def test_any_bytes_can_be_an_id(lab: Lab, job_id: str) -> None:
    name = job_id.encode("utf-8", "surrogateescape")
    lab.raw.hset(lab.keys.job_prefix.encode() + name, mapping={"status": "queued", "type": "mail"})
    lab.raw.zadd(lab.keys.ready, {name: 1})
    claimed = lab.claim_one()
    assert claimed.id == job_id
    assert lab.claim(number=1).jobs[0].id == job_id
    assert lab.end(claimed) == "ok"
    assert lab.raw.hget(lab.keys.job_prefix.encode() + name, "status") == "completed"


# Order


def test_the_lowest_score_runs_first(lab: Lab) -> None:
    for job_id, score in (("c", "inf"), ("b", 1e308), ("a", -3), ("z", "-inf"), ("d", 0.5)):
        lab.put(job_id, score=score)
    jobs = lab.claim().jobs
    assert [job.id for job in jobs] == ["z", "a", "d", "b", "c"]
    assert [job.waited() for job in jobs] == [None] * 5


@pytest.mark.parametrize(
    ("score", "priority"),
    [(10, "10"), (10.17639, "10"), (-2.5, "-3"), ("inf", "1000000000000000"), ("-inf", "-1000000000000000")],
)
def test_the_field_priority_follows_the_score(lab: Lab, score: float | str, priority: str) -> None:
    lab.put("X", score=score, priority="999")
    lab.claim()
    assert lab.field("X", "priority") == priority


def test_no_more_than_wanted_are_claimed(lab: Lab) -> None:
    for n in range(5):
        lab.put(f"j{n}", score=n)
    assert lab.claim_ids(want=2) == ["j0", "j1"]
    assert lab.claim_ids(want=2) == ["j2", "j3"]
    assert lab.claim_ids(want=2) == ["j4"]
    assert lab.claim_ids(want=2) == []


def test_a_claim_of_five_hundred(lab: Lab) -> None:
    lab.enqueue(*(NewJob(f"j{n:03}", 5, {"type": "mail"}) for n in range(500)))
    assert lab.claim_ids(want=500) == [f"j{n:03}" for n in range(500)]


# Claims sent twice


def test_an_equal_number_gives_the_same_leases_again(lab: Lab) -> None:
    lab.put("X", score=3)
    first = lab.claim(number=7).jobs[0]
    lab.put("Y")
    again = lab.claim(number=7).jobs
    assert [(job.id, job.fence, job.score) for job in again] == [(first.id, first.fence, 3.0)]
    assert lab.where("Y") == ["ready"]


def test_an_equal_number_renews_what_it_gives_again(lab: Lab) -> None:
    lab.put("X")
    lab.claim(number=7)
    lab.lapse("X")
    lab.claim(number=7)
    assert lab.raw.zscore(lab.keys.active, "X") > lab.now()


def test_a_lower_number_gives_nothing(lab: Lab) -> None:
    lab.put("X")
    lab.claim(number=7)
    lab.put("Y")
    assert lab.claim_ids(number=6) == []
    assert lab.where("Y") == ["ready"]


def test_a_higher_number_is_a_new_claim(lab: Lab) -> None:
    lab.put("X")
    lab.claim(number=7)
    lab.put("Y")
    assert lab.claim_ids(number=8) == ["Y"]


def test_an_equal_number_leaves_out_what_another_run_holds(lab: Lab) -> None:
    lab.put("X", score=1)
    lab.put("Y", score=2)
    claimed = lab.claim(number=7).jobs
    lab.end(claimed[0], "ready")
    lab.claim_one("w2")
    assert lab.claim_ids(number=7) == ["Y"]
    assert lab.field("X", "worker") == "w2"


def test_an_equal_number_leaves_out_what_the_same_worker_claimed_anew(lab: Lab) -> None:
    first = lab.leased("X")
    lab.end(first, "ready")
    lab.raw.delete(lab.keys.claim("w1"))
    record = lab.claim_call(number=1)
    assert [job.fence for job in lab.run(record).jobs] == [2]
    lab.set("X", fence=9)
    assert lab.run(record).jobs == []


def test_an_equal_number_leaves_out_what_has_ended(lab: Lab) -> None:
    lab.put("X")
    claimed = lab.claim(number=7).jobs[0]
    lab.end(claimed)
    assert lab.claim_ids(number=7) == []


def test_the_record_of_a_claim_lasts_ten_leases(lab: Lab) -> None:
    lab.claim(lease=15)
    assert 140_000 < lab.raw.pttl(lab.keys.claim("w1")) <= 150_000


def test_workers_number_their_claims_apart(lab: Lab) -> None:
    lab.put("X", score=1)
    lab.put("Y", score=2)
    assert lab.claim_ids("w1", 1, number=5) == ["X"]
    assert lab.claim_ids("w2", 1, number=1) == ["Y"]


def test_a_foreign_key_in_place_of_the_record_is_replaced(lab: Lab) -> None:
    lab.raw.lpush(lab.keys.claim("w1"), "x")
    lab.put("X")
    assert lab.claim_ids(number=1) == ["X"]
    assert lab.claim_ids(number=1) == ["X"]


# Ids met in other states


def test_an_active_id_enqueued_again_stays_one_run(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.put("X")
    assert lab.claim_ids("w2") == []
    assert lab.where("X") == ["active"]
    assert lab.status("X") == "processing"
    assert lab.end(claimed) == "ok"
    assert lab.claim_ids("w2") == []


@pytest.mark.parametrize(("to", "status"), [("completed", "completed"), ("dead", "failed")])
def test_an_ended_id_that_only_returns_to_the_ready_set_is_dropped(lab: Lab, to: str, status: str) -> None:
    lab.end(lab.leased("X"), to)
    lab.zadd("X")
    claims = lab.claim()
    assert (claims.jobs, claims.dropped) == ([], [("X", status)])
    assert lab.where("X") == []


def test_a_cancelled_id_that_only_returns_to_the_ready_set_is_dropped(lab: Lab) -> None:
    lab.put("X")
    lab.cancel("X")
    lab.zadd("X")
    assert lab.claim().dropped == [("X", "cancelled")]


def test_a_terminal_status_without_an_end_is_a_producers_slip_and_runs(lab: Lab) -> None:
    lab.put("X")
    lab.set("X", status="completed")
    assert lab.claim_ids() == ["X"]


def test_an_ended_id_queued_again_without_del_begins_anew(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.end(claimed, "dead", charge="attempts")
    lab.set("X", crashes=2, interruptions=2, checkpoint="{}", result="1", progress="9", _ended="w1:1")
    lab.put("X", user_id=8)
    again = lab.claim_one("w2")
    gone = {"attempts", "crashes", "interruptions", "checkpoint", "result", "error", "error_type", "traceback",
            "finished_at", "_history", "progress", "_ended"}  # fmt: skip
    assert not gone & lab.job("X").keys()
    assert not (gone - {"progress"}) & again.fields.keys()
    assert again.fence == claimed.fence + 1
    assert (lab.ttl("X"), lab.field("X", "user_id"), lab.dead()) == (-1, "8", [])
    assert lab.end(again, worker="w2") == "ok"


def test_a_deleted_id_queued_again_is_a_new_job(lab: Lab) -> None:
    lab.end(lab.leased("X"))
    lab.raw.delete(lab.keys.job("X"))
    lab.put("X")
    assert lab.claim_one().fence == 1
    assert lab.counters()["entered"] == 2


def test_a_scheduled_id_enqueued_again_runs_now_and_once(lab: Lab) -> None:
    lab.enqueue(NewJob("X", 5, {"type": "mail"}, delay=1000))
    lab.put("X")
    assert lab.claim_ids() == ["X"]
    assert lab.where("X") == ["active"]


def test_a_held_id_enqueued_again_runs_once(lab: Lab) -> None:
    lab.put("X", "film")
    assert lab.claim_ids() == []
    lab.put("X", "film", score=3)
    assert lab.claim_ids(want=1, types={"film": -1}) == ["X"]
    assert lab.where("X") == ["active"]
    assert lab.claim_ids(types={"film": -1}) == []
    assert lab.raw.exists(lab.keys.held, lab.keys.held_for("type:film")) == 0


# Jobs that may not run here


def test_a_type_without_a_handler_is_put_aside_and_bars_nobody(lab: Lab) -> None:
    lab.put("film", "film", score=1)
    lab.put("mail", score=2)
    claims = lab.claim(want=1)
    assert [job.id for job in claims.jobs] == ["mail"]
    assert claims.more is False
    assert lab.where("film") == ["held:type:film"]
    assert (lab.status("film"), lab.field("film", "held")) == ("queued", "type:film")
    assert lab.raw.zscore(lab.keys.held_for("type:film"), "film") == 1


def test_caps_hold_within_one_batch(lab: Lab) -> None:
    for n in range(5):
        lab.put(f"f{n}", "film", score=n)
    lab.put("mail", score=9)
    assert lab.claim_ids(types={"film": 2, "mail": -1}) == ["f0", "f1", "mail"]
    assert [lab.where(f"f{n}") for n in (2, 3, 4)] == [["held:type:film"]] * 3
    assert lab.claim_ids(types={"film": 0, "mail": -1}) == []
    assert lab.claim_ids(types={"film": 1, "mail": -1}) == ["f2"]


def test_held_jobs_are_claimed_by_score_among_the_ready(lab: Lab) -> None:
    for score in (1, 3, 5):
        lab.put(f"f{score}", "film", score=score)
    lab.claim()
    for score in (2, 3, 4):
        lab.put(f"m{score}", score=score)
    both = {"film": -1, "mail": -1}
    assert lab.claim_ids(want=3, types=both) == ["f1", "m2", "f3"]
    assert lab.claim_ids(want=9, types=both) == ["m3", "m4", "f5"]
    assert lab.raw.exists(lab.keys.held) == 0


def test_a_job_taken_from_a_held_set_loses_the_mark(lab: Lab) -> None:
    lab.put("X", "film")
    lab.claim()
    lab.claim(types={"film": -1})
    assert lab.field("X", "held") is None
    assert lab.where("X") == ["active"]


def test_a_held_job_whose_type_changed_does_not_bar_the_others(lab: Lab) -> None:
    lab.put("old", "film", score=1)
    lab.put("next", "film", score=2)
    lab.claim()
    lab.set("old", type="song")
    assert lab.claim_ids(types={"film": -1}) == ["next"]
    assert lab.where("old") == ["held:type:song"]
    assert lab.claim_ids(types={"song": -1}) == ["old"]


def test_a_held_job_that_is_ready_too_is_put_aside_at_its_new_score(lab: Lab) -> None:
    for n in range(3):
        lab.put(f"f{n}", "film", score=n)
    lab.claim()
    lab.put("f1", "film", score=9)
    assert lab.claim_ids(want=5, types={"film": 1}) == ["f0"]
    assert lab.where("f1") == ["held:type:film"]
    assert lab.claim_ids(want=5, types={"film": -1}) == ["f2", "f1"]


def test_held_entries_without_a_job_are_cleared_away(lab: Lab) -> None:
    lab.put("gone", "film", score=1)
    lab.put("next", "film", score=2)
    lab.claim()
    lab.raw.delete(lab.keys.job("gone"))
    claims = lab.claim(types={"film": -1})
    assert [job.id for job in claims.jobs] == ["next"]
    assert claims.dropped == [("gone", "no hash")]
    assert lab.raw.exists(lab.keys.held) == 0


def test_twenty_thousand_blocked_ids_are_moved_aside_a_hundred_a_call(lab: Lab) -> None:
    blocked = 20_000
    pipe = lab.raw.pipeline(transaction=False)
    for n in range(blocked):
        pipe.hset(lab.keys.job(f"f{n:05}"), mapping={"status": "queued", "type": "film"})
        pipe.zadd(lab.keys.ready, {f"f{n:05}": 1})
    pipe.execute()
    lab.put("mail", score=2)
    calls = 0
    while True:
        claims = lab.claim(want=1)
        calls += 1
        if claims.jobs:
            break
        assert claims.more
        assert lab.raw.zcard(lab.keys.ready) == blocked + 1 - 100 * calls
    assert calls == blocked // 100 + 1
    assert lab.raw.zcard(lab.keys.held_for("type:film")) == blocked
    assert lab.claim_ids(want=3, types={"film": -1}) == ["f00000", "f00001", "f00002"]


@pytest.mark.parametrize("want", [1, 50])
def test_more_is_said_only_where_the_head_was_full(lab: Lab, want: int) -> None:
    for n in range(100):
        lab.put(f"f{n:03}", "film", score=1)
    lab.put("mail", score=2)
    assert lab.claim(want=want).more
    claims = lab.claim(want=want)
    assert ([job.id for job in claims.jobs], claims.more) == (["mail"], False)


def test_an_expired_job_is_handed_out_whatever_its_type(lab: Lab) -> None:
    lab.put("X", "film", _due_at=lab.due(31 * DAY))
    assert lab.claim_ids(max_age=30 * DAY) == ["X"]


def test_a_new_enqueue_of_an_old_id_is_not_expired(lab: Lab) -> None:
    lab.end(lab.leased("X"))
    lab.set("X", _due_at="1000.000000")
    lab.put("X", "film")
    assert lab.claim_ids() == []
    assert lab.where("X") == ["held:type:film"]
    assert lab.ttl("X") == -1
    assert lab.field("X", "finished_at") is None


# ZADD before HSET


def test_an_id_whose_hash_comes_late_runs_at_its_score(lab: Lab) -> None:
    lab.zadd("X", 7)
    assert lab.claim_ids() == []
    assert lab.where("X") == ["held:missing"]
    lab.hset("X")
    assert lab.promote().moved == 0
    assert lab.where("X") == ["held:missing"]
    lab.raw.zadd(lab.keys.missing, {"X": lab.now() - 1.1})
    lab.promote()
    assert lab.raw.zscore(lab.keys.ready, "X") == 7
    assert lab.where("X") == ["ready"]
    assert lab.claim_ids() == ["X"]


@pytest.mark.parametrize("again", [3.5, 99])
def test_a_deleted_job_that_was_held_is_an_enqueue_like_any_other_when_its_id_comes_again(
    lab: Lab, again: float
) -> None:
    lab.put("X", "film", score=10)
    lab.claim()
    lab.raw.delete(lab.keys.job("X"))
    lab.zadd("X", again)
    lab.claim(types={"film": -1})
    assert lab.where("X") == ["held:missing"]
    lab.hset("X", "film")
    lab.raw.zadd(lab.keys.missing, {"X": 1})
    lab.promote()
    assert lab.claim_ids(types={"film": -1}) == ["X"]
    assert lab.where("X") == ["active"]


def test_an_id_without_a_hash_is_given_up_after_five_seconds(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.raw.zadd(lab.keys.missing, {"X": lab.now() - 4})
    assert lab.promote().dropped == []
    assert lab.where("X") == ["held:missing"]
    lab.raw.zadd(lab.keys.missing, {"X": lab.now() - 5.1})
    assert lab.promote().dropped == [("X", "no hash")]
    assert lab.raw.exists(lab.keys.held, lab.keys.missing, lab.keys.held_for("missing")) == 0


def test_adding_an_id_again_does_not_prolong_its_wait_for_a_hash(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.raw.zadd(lab.keys.missing, {"X": 1000})
    lab.zadd("X")
    lab.claim()
    assert lab.raw.zscore(lab.keys.missing, "X") == 1000


def test_a_late_hash_with_a_second_zadd_leaves_no_trace(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.put("X", score=3)
    assert lab.claim_ids() == ["X"]
    assert lab.where("X") == ["active"]
    assert lab.raw.exists(lab.keys.missing, lab.keys.held_for("missing")) == 0


# Errors


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "held", "missing"])
def test_a_key_of_a_wrong_type_stops_a_claim_before_it_writes(lab: Lab, name: str) -> None:
    key = getattr(lab.keys, name)
    if name != "ready":
        lab.put("X", score=1)
        lab.put("film", "film", score=2)
        lab.zadd("nohash", 3)
    lab.raw.set(key, "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.claim(number=1)
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before
    lab.raw.delete(key)
    if name not in ("ready", "active"):
        assert lab.claim_ids(number=1) == ["X"]


def test_a_foreign_key_in_place_of_a_held_set_costs_its_jobs_a_minute_and_others_nothing(lab: Lab) -> None:
    key = lab.keys.held_for("type:film")
    lab.raw.set(key, "foreign")
    lab.put("film", "film", score=3.5, priority=9, held="type:song")
    lab.put("mail", score=4)
    claims = lab.claim()
    assert ([job.id for job in claims.jobs], claims.foreign, claims.dropped) == (["mail"], [key], [])
    assert (lab.where("film"), lab.raw.get(key)) == (["scheduled"], "foreign")
    assert (lab.status("film"), lab.field("film", "priority"), lab.field("film", "held")) == ("scheduled", "3", None)
    assert 55 < lab.raw.zscore(lab.keys.scheduled, "film") - lab.now() <= 60
    lab.raw.delete(key)
    lab.make_due("film")
    lab.promote()
    assert lab.claim_ids() == []
    assert lab.where("film") == ["held:type:film"]
    assert lab.claim_ids(types={"film": -1}) == ["film"]
    assert lab.counters()["entered"] == 2


def test_a_foreign_key_in_place_of_the_suspects_costs_nobody_else(lab: Lab) -> None:
    key = lab.keys.held_for("suspect")
    lab.raw.set(key, "foreign")
    lab.put("suspect", score=1, crashes=5)
    lab.put("mail", score=2)
    claims = lab.claim(suspects=running.Suspects(2, 0))
    assert ([job.id for job in claims.jobs], claims.foreign) == (["mail"], [key])
    assert lab.where("suspect") == ["scheduled"]


def test_many_jobs_without_a_held_set_do_not_bar_the_others(lab: Lab) -> None:
    lab.raw.set(lab.keys.held_for("type:film"), "foreign")
    for n in range(250):
        lab.put(f"f{n:03}", "film", score=1)
    lab.put("mail", score=2)
    assert [lab.claim_ids() for _ in range(3)] == [[], [], ["mail"]]
    assert lab.raw.zcard(lab.keys.scheduled) == 250


def test_a_foreign_key_in_place_of_the_ids_without_a_hash_costs_nobody_else(lab: Lab) -> None:
    key = lab.keys.held_for("missing")
    lab.zadd("early", 1)
    lab.claim()
    lab.raw.set(key, "foreign")
    lab.zadd("nohash", 1)
    lab.zadd("late", 1)
    lab.put("mail", score=2)
    claims = lab.claim()
    assert ([job.id for job in claims.jobs], claims.foreign) == (["mail"], [key])
    assert lab.raw.zrange(lab.keys.scheduled, 0, -1) == ["late", "nohash"]
    assert lab.raw.zcard(lab.keys.ready) == 0
    for job_id in ("early", "late"):
        lab.hset(job_id)
    for job_id in ("nohash", "late"):
        lab.make_due(job_id)
    lab.raw.zadd(lab.keys.missing, {"early": 1})
    assert lab.promote().dropped == [("nohash", "no hash")]
    assert sorted(lab.claim_ids()) == ["early", "late"]
    assert lab.raw.exists(lab.keys.missing) == 0


def test_whoever_else_meets_a_foreign_key_in_place_of_the_ids_without_a_hash_goes_on(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.raw.set(lab.keys.held_for("missing"), "foreign")
    lab.enqueue(NewJob("X", 5, {"type": "mail"}), NewJob("Y", 5, {"type": "mail"}))
    assert lab.cancel("Y") == ["removed"]
    lab.set("Z", status="queued", type="mail", _due_at=f"{lab.now():.6f}")
    assert lab.walk() == [("Z", "restored")]
    assert sorted(lab.claim_ids()) == ["X", "Z"]


def test_a_foreign_held_set_that_still_stops_a_script_is_named(lab: Lab) -> None:
    for reason in ("missing", "type:film"):
        key = lab.keys.held_for(reason)
        lab.raw.set(key, "foreign")
        lab.raw.sadd(lab.keys.held, reason)
        with pytest.raises(StoreError, match=f"{key} is a string, not a zset: RENAME or DEL what stands there"):
            lab.run(repairing.tidy(lab.keys, reason, ["X"], dry=True))
        lab.raw.delete(key)


def test_a_user_who_may_not_read_jobs_drops_none(lab: Lab) -> None:
    lab.put("X")
    # Every key but the hashes: what an ACL that was narrowed too far leaves.
    lab.raw.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "+@all", "&*", f"~{lab.keys.ready}*")
    user = redis.Redis(
        unix_socket_path=lab.raw.connection_pool.connection_kwargs["path"], username="narrow", password="pw"
    )
    call = lab.claim_call()
    try:
        with pytest.raises(redis.ResponseError):
            user.execute_command(*call.by_source())
    finally:
        user.close()
        lab.raw.execute_command("ACL", "DELUSER", "narrow")
    assert lab.where("X") == ["ready"]


def test_counters_of_a_wrong_type_cost_no_job(lab: Lab) -> None:
    lab.raw.set(lab.keys.counters, "foreign")
    claimed = lab.leased("X")
    assert lab.end(claimed) == "ok"


def test_entered_is_counted_once_for_each_enqueue(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.end(claimed, "retrying")
    lab.make_due("X")
    lab.promote()
    lab.claim()
    lab.put("film", "film")
    lab.claim()
    lab.claim(types={"film": -1})
    assert lab.counters()["entered"] == 2


# Wake-up


async def test_the_last_read_of_a_claim_arms_the_tracking(target: Target, lab: Lab, keys: Keys) -> None:
    heard = asyncio.Event()
    link = TrackedLink(target, keys.ready, keys.control, on_change=heard.set, on_control=lambda _: None)
    try:
        for number in range(1, 4):
            await link.run(lab.claim_call(number=number))
            heard.clear()
            lab.put(f"X{number}")
            await asyncio.wait_for(heard.wait(), 5)
            # The claim that takes the job writes to `ready`: its last read must arm the tracking again.
        await link.run(lab.claim_call(number=4))
        heard.clear()
        lab.put("Y")
        await asyncio.wait_for(heard.wait(), 5)
        await link.run(lab.claim_call(number=4))
        heard.clear()
        lab.put("Z")
        await asyncio.wait_for(heard.wait(), 5)
    finally:
        await link.close()


def test_the_scripts_have_no_shebang_and_name_their_contract() -> None:
    names = ("claim", "settle", "lapsed", "promote", "walk", "beat", "progress", "checkpoint", "enqueue", "cancel",
             "dead_retry")  # fmt: skip
    for name in names:
        text = script(name).source.decode()
        assert text.startswith(f"-- {name}: ")
        for word in ("KEYS", "ARGV", "RETURNS"):
            assert f"-- {word}  " in text


def test_a_predecessors_jobs_are_not_touched_by_a_settled_batch(lab: Lab) -> None:
    lab.put("A", score=1)
    mine = lab.claim_one("w1")
    lab.put("B", score=1)
    lab.claim_one("w2")
    before = lab.job("B")
    assert lab.settle(order(mine)) == ["ok"]
    assert lab.job("B") == before
    assert running.CLAIM_MAX == 500


def test_an_equal_number_leaves_out_what_another_worker_holds_under_the_same_fence(lab: Lab) -> None:
    lab.put("X")
    lab.claim("w1", number=7)
    # After a fail-over that lost the first claim the second has fence 1 as well.
    lab.raw.delete(lab.keys.job("X"), lab.keys.active)
    lab.put("X")
    assert lab.claim_one("w2").fence == 1
    assert lab.claim_ids("w1", number=7) == []


def test_a_completed_job_that_is_still_active_is_not_set_back_to_processing(lab: Lab) -> None:
    """A settle cut short left the id in `active`; a stray ZADD must not bring the ended job to life."""
    lab.end(lab.leased("X"))
    lab.raw.zadd(lab.keys.active, {"X": 1})
    lab.zadd("X")
    assert lab.claim().jobs == []
    assert (lab.status("X"), "ready" in lab.where("X")) == ("completed", False)
