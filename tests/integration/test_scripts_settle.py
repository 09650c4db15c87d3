"""Settle: whose end of a run counts, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import redis

from jobqd.errors import StoreError, StoreFault
from jobqd.job import Claimed
from jobqd.retry import Settlement
from jobqd.scripts import Script
from jobqd.store import running
from jobqd.store.call import Call
from jobqd.store.producing import NewJob
from tests.redis_server import RedisServer
from tests.support.lab import DAY, Lab, lapse_orders, order

ALL_ENDS = ("completed", "dead", "ready", "retrying", "scheduled")


# What each end writes


def test_completed(lab: Lab) -> None:
    assert lab.end(lab.leased("X"), result='{"url": "a"}') == "ok"
    job = lab.job("X")
    assert (job["status"], job["result"], job["attempts"]) == ("completed", '{"url": "a"}', "1")
    assert abs(float(job["finished_at"]) - lab.now()) < 5
    assert lab.where("X") == []
    assert DAY - 5 < lab.ttl("X") <= DAY
    assert lab.raw.lrange(lab.keys.finished, 0, -1) == ["X"]


def test_dead_lettered(lab: Lab) -> None:
    assert lab.end(lab.leased("X"), "dead", ttl=30 * DAY, traceback="Traceback ...") == "ok"
    job = lab.job("X")
    assert (job["status"], job["error"], job["error_type"], job["traceback"]) == (
        "failed", "it broke", "ValueError", "Traceback ...",
    )  # fmt: skip
    assert "finished_at" in job
    assert lab.where("X") == []
    assert 30 * DAY - 5 < lab.ttl("X") <= 30 * DAY
    assert lab.dead() == ["X"]


def test_to_be_tried_again(lab: Lab) -> None:
    assert lab.end(lab.leased("X"), "retrying", delay=60.0) == "ok"
    job = lab.job("X")
    assert (job["status"], job["attempts"], job["error"]) == ("retrying", "1", "it broke")
    assert "finished_at" not in job
    assert lab.where("X") == ["scheduled"]
    assert 55 < lab.raw.zscore(lab.keys.scheduled, "X") - lab.now() <= 60
    assert lab.ttl("X") == -1


def test_snoozed(lab: Lab) -> None:
    assert lab.end(lab.leased("X"), "scheduled", delay=60.0) == "ok"
    assert (lab.status("X"), lab.where("X"), lab.field("X", "attempts")) == ("scheduled", ["scheduled"], None)


def test_released_ahead_of_its_equals(lab: Lab) -> None:
    assert lab.end(lab.leased("X", score=10.5), "ready") == "ok"
    assert (lab.status("X"), lab.where("X")) == ("queued", ["ready"])
    assert (lab.field("X", "interruptions"), lab.field("X", "attempts")) == ("1", None)
    lab.put("Y", score=10.1)
    assert lab.claim_ids() == ["X", "Y"]


@pytest.mark.parametrize("forged", ["abc", "nan", "inf", "-inf", "1e308", ""])
def test_a_forged_priority_costs_no_neighbour(lab: Lab, forged: str) -> None:
    bad, good = lab.leased("bad"), lab.leased("good")
    lab.set("bad", priority=forged)
    assert lab.settle(order(bad, "ready"), order(good)) == ["ok", "ok"]
    assert lab.raw.zscore(lab.keys.ready, "bad") == 0


def test_a_delay_that_is_no_number_costs_no_neighbour(lab: Lab) -> None:
    bad, good = lab.leased("bad"), lab.leased("good")
    assert lab.settle(order(bad, "retrying", delay=float("nan")), order(good)) == ["ok", "ok"]
    assert lab.where("bad") == ["scheduled"]


@pytest.mark.parametrize("delay", [1e11, 1e12, 1e13, 1e300, float("inf")])
@pytest.mark.parametrize("to", ["retrying", "scheduled"])
def test_a_delay_beyond_all_times_is_a_long_one(lab: Lab, to: str, delay: float) -> None:
    assert lab.end(lab.leased("X"), to, delay=delay) == "ok"
    assert abs(lab.raw.zscore(lab.keys.scheduled, "X") - lab.now() - 1e10) < 60
    assert lab.promote().corrected == []
    # It is bounded by max_age, as every snooze.
    lab.set("X", _due_at=lab.due(31 * DAY))
    assert lab.walk() == [("X", "expired")]


@pytest.mark.parametrize("to", ["completed", "dead"])
def test_a_ttl_beyond_what_redis_takes_costs_no_neighbour(lab: Lab, to: str) -> None:
    bad, good = lab.leased("bad"), lab.leased("good")
    assert lab.settle(order(bad, to, ttl=1e300), order(good)) == ["ok", "ok"]
    assert lab.ttl("bad") > 0


@pytest.mark.parametrize("to", ALL_ENDS)
def test_the_new_status_is_published(lab: Lab, to: str) -> None:
    claimed = lab.leased("X")
    with lab.raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(lab.keys.progress("X"))
        channel.get_message(timeout=1)
        lab.end(claimed, to)
        message = channel.get_message(timeout=2)
    assert message is not None
    assert json.loads(message["data"]) == {"status": lab.status("X")}


def test_success_clears_the_error_of_an_earlier_attempt(lab: Lab) -> None:
    lab.end(lab.leased("X"), "retrying", traceback="Traceback ...")
    lab.make_due("X")
    lab.promote()
    lab.end(lab.claim_one())
    assert not {"error", "error_type", "traceback"} & lab.job("X").keys()
    assert lab.field("X", "attempts") == "2"


@pytest.mark.parametrize("forged", ["abc", "-5", "1.5", "9" * 16])
def test_forged_counts_start_anew_at_nought(lab: Lab, forged: str) -> None:
    claimed = lab.leased("X")
    lab.set("X", attempts=forged)
    lab.end(claimed)
    assert lab.field("X", "attempts") == "1"


def test_the_history_of_failures_keeps_the_last_ten(lab: Lab) -> None:
    lab.put("X")
    for n in range(13):
        claimed = lab.claim_one()
        lab.end(claimed, "retrying", history=f'{{"attempt":{n}}}')
        lab.make_due("X")
        lab.promote()
    lines = [json.loads(line) for line in (lab.field("X", "_history") or "").splitlines()]
    assert [line["attempt"] for line in lines] == list(range(3, 13))
    assert all(abs(line["at"] - lab.now()) < 60 for line in lines)


def test_a_forged_history_that_is_too_long_is_let_go(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.set("X", _history="x" * 20_001)
    lab.end(claimed, "retrying")
    assert len(lab.field("X", "_history") or "") < 200


# Who may settle


def test_settling_twice_answers_already_and_changes_nothing(lab: Lab) -> None:
    for n, to in enumerate(ALL_ENDS):
        claimed = lab.leased(f"job-{to}", score=-n)
        assert lab.end(claimed, to) == "ok"
        before = lab.snapshot()
        assert lab.end(claimed, to) == "already"
        assert lab.snapshot() == before
    assert lab.counters()["refused"] == 0


def test_the_same_settle_twice_in_one_batch_counts_once(lab: Lab) -> None:
    claimed = lab.leased("X")
    assert lab.settle(order(claimed, "ready"), order(claimed, "ready")) == ["ok", "already"]
    assert lab.field("X", "interruptions") == "1"


def test_a_stale_run_beside_the_current_one_in_one_batch_is_refused(lab: Lab) -> None:
    claimed = lab.leased("X")
    old = Claimed("X", 0, 0, 0, {})
    assert lab.settle(order(claimed), order(old, worker="w0")) == ["ok", "stale"]


@pytest.mark.parametrize("to", ALL_ENDS)
def test_a_settle_sent_again_after_the_job_was_leased_anew_leaves_that_lease_alone(lab: Lab, to: str) -> None:
    first = lab.leased("X")
    lab.end(first, "ready")
    second = lab.claim_one("w2")
    assert lab.end(first, to) == "already"
    assert lab.where("X") == ["active"]
    assert lab.end(second, worker="w2") == "ok"


@pytest.mark.parametrize("to", ALL_ENDS)
@pytest.mark.parametrize(("worker", "fence"), [("w2", 1), ("w1", 2), ("w1", 0), ("w2", 2)])
def test_a_write_needs_both_the_worker_and_the_fence(lab: Lab, to: str, worker: str, fence: int) -> None:
    lab.leased("X")
    before = lab.snapshot()
    forged = Claimed("X", fence, 0, 0, {})
    assert lab.end(forged, to, worker) == "stale"
    assert lab.counters()["refused"] == 1
    lab.raw.hdel(lab.keys.counters, "refused")
    assert lab.snapshot() == before


def test_a_result_from_a_lost_lease_is_refused(lab: Lab) -> None:
    lost = lab.leased("X")
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed())) == ["ok"]
    assert lab.end(lost) == "stale"
    second = lab.claim_one("w2")
    assert lab.end(lost) == "stale"
    assert lab.status("X") == "processing"
    assert lab.end(second, worker="w2") == "ok"


def test_two_daemons_with_the_same_fence_after_a_fail_over(lab: Lab) -> None:
    stale = lab.leased("X", "w1")
    lab.raw.delete(lab.keys.job("X"), lab.keys.active)
    current = lab.leased("X", "w2")
    assert stale.fence == current.fence
    assert lab.end(stale, worker="w1") == "stale"
    assert lab.end(current, worker="w2") == "ok"


@pytest.mark.parametrize("to", ALL_ENDS)
def test_a_run_whose_lease_entry_is_gone_is_refused(lab: Lab, to: str) -> None:
    claimed = lab.leased("X")
    lab.raw.zrem(lab.keys.active, "X")
    before = lab.job("X")
    assert lab.end(claimed, to) == "stale"
    assert lab.job("X") == before


def test_a_lapsed_lease_that_nobody_has_taken_still_counts(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.lapse("X")
    assert lab.end(claimed) == "ok"


@pytest.mark.parametrize("to", ALL_ENDS)
def test_a_cancelled_job_takes_no_result(lab: Lab, to: str) -> None:
    claimed = lab.leased("X")
    lab.cancel("X")
    before = lab.job("X")
    assert lab.end(claimed, to) == "cancelled"
    assert (lab.job("X"), lab.where("X"), lab.dead()) == (before, [], [])


def test_a_cancelled_job_that_is_queued_anew_refuses_the_cancelled_run(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.cancel("X")
    lab.put("X")
    again = lab.claim_one("w2")
    assert lab.end(claimed) == "stale"
    assert lab.end(again, worker="w2") == "ok"


def test_a_job_that_is_gone(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.raw.delete(lab.keys.job("X"))
    assert lab.end(claimed) == "gone"
    lab.raw.lpush(lab.keys.job("X"), "foreign")
    assert lab.end(claimed) == "gone"
    assert lab.lapsed() == []
    lab.lapse("X")
    assert lab.lapsed() == []
    assert lab.where("X") == []


def test_a_job_that_is_gone_costs_no_neighbour(lab: Lab) -> None:
    gone, good = lab.leased("gone"), lab.leased("good")
    lab.raw.delete(lab.keys.job("gone"))
    lab.raw.lpush(lab.keys.job("gone"), "foreign")
    assert lab.settle(order(gone), order(good)) == ["gone", "ok"]
    assert lab.status("good") == "completed"


def test_a_foreign_hset_on_a_running_job_changes_no_owner(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.hset("X", user_id=9)
    assert lab.end(claimed) == "ok"
    assert lab.status("X") == "completed"


def test_an_enqueue_of_a_running_job_adds_no_run(lab: Lab) -> None:
    for to, index in (("completed", []), ("dead", []), ("retrying", ["scheduled"]), ("ready", ["ready"])):
        claimed = lab.leased(f"job-{to}")
        lab.put(f"job-{to}")
        assert lab.end(claimed, to) == "ok"
        assert lab.where(f"job-{to}") == index
        lab.raw.delete(lab.keys.ready)


def test_settles_of_one_batch_are_judged_one_by_one(lab: Lab) -> None:
    mine, foreign, done, cancelled = (lab.leased(name) for name in ("mine", "foreign", "done", "cancelled"))
    lab.end(done)
    lab.cancel("cancelled")
    answers = lab.settle(order(foreign, worker="w9"), order(mine), order(done), order(cancelled))
    assert answers == ["stale", "ok", "already", "cancelled"]


# A lapse, and a dead daemon


def test_a_lapse_is_charged_as_a_crash_only(lab: Lab) -> None:
    lab.leased("X")
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed())) == ["ok"]
    job = lab.job("X")
    assert (job["crashes"], job["status"], job.get("attempts"), job.get("interruptions")) == (
        "1", "queued", None, None,
    )  # fmt: skip
    assert "worker" not in job
    assert lab.where("X") == ["ready"]


def test_a_lease_renewed_in_between_does_not_lapse(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.lapse("X")
    orders = lapse_orders(lab.lapsed())
    lab.beat("w1", ("X", claimed.fence))
    assert lab.settle(*orders) == ["renewed"]
    assert lab.where("X") == ["active"]
    assert lab.field("X", "crashes") is None
    assert lab.end(claimed) == "ok"


def test_a_lease_that_ran_out_after_it_was_judged_does_not_lapse(lab: Lab) -> None:
    lab.leased("X")
    lab.lapse("X")
    orders = lapse_orders(lab.lapsed())
    ran_out = lab.raw.zscore(lab.keys.active, "X")
    assert lab.settle(*orders, as_of=ran_out) == ["renewed"]
    assert lab.settle(*orders, as_of=lab.now() + 1000) == ["ok"]


def test_a_lapse_that_another_daemon_settled_first_is_refused(lab: Lab) -> None:
    lab.leased("X")
    lab.lapse("X")
    orders = lapse_orders(lab.lapsed())
    assert lab.settle(*orders) == ["ok"]
    second = lab.claim_one("w2")
    assert lab.settle(*orders) == ["stale"]
    assert lab.field("X", "crashes") == "1"
    assert lab.end(second, worker="w2") == "ok"


def test_a_lapse_can_end_in_the_dead_letters(lab: Lab) -> None:
    lab.leased("X")
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed(), to="dead")) == ["ok"]
    assert (lab.status("X"), lab.dead(), lab.where("X")) == ("failed", ["X"], [])


def test_a_dead_daemons_lease_need_not_run_out(lab: Lab) -> None:
    lab.leased("X")
    orders = lapse_orders(lab.lapsed(dead_worker="w1"), "dead")
    assert [lapse.job_id for lapse in orders] == ["X"]
    assert lab.settle(*orders) == ["ok"]
    assert lab.where("X") == ["ready"]


def test_a_late_result_of_a_dead_daemon_is_stale_while_the_job_waits(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.settle(*lapse_orders(lab.lapsed(dead_worker="w1"), "dead"))
    for to in ALL_ENDS:
        assert lab.end(claimed, to) in ("stale", "already")
        assert lab.where("X") == ["ready"]
    lab.raw.zadd(lab.keys.active, {"X": lab.now() + 10})
    assert lab.end(claimed) == "stale"


# The dead letters


def test_the_dead_letters_are_newest_first_each_once_and_bounded(lab: Lab) -> None:
    for name in ("A", "B", "C", "D"):
        claimed = lab.leased(name)
        assert lab.settle(order(claimed, "dead", ttl=30 * DAY), dead_max=2, trimmed_ttl=100) == ["ok"]
    assert lab.dead() == ["D", "C"]
    assert [lab.ttl(name) > 100 for name in "ABCD"] == [False, False, True, True]
    assert lab.status("A") == "failed"
    lab.put("C")
    lab.settle(order(lab.claim_one(), "dead"), dead_max=2)
    assert lab.dead() == ["C", "D"]
    # A dead-lettering that was cut short, then sent again.
    claimed = lab.leased("E")
    lab.raw.rpush(lab.keys.dead, "E")
    lab.raw.sadd(lab.keys.dead_ids, "E")
    lab.settle(order(claimed, "dead"), dead_max=9)
    assert lab.dead() == ["E", "C", "D"]


def test_the_set_of_dead_letters_is_that_of_the_list(lab: Lab) -> None:
    for name in ("A", "B", "C"):
        lab.settle(order(lab.leased(name), "dead"), dead_max=2)
    assert lab.raw.smembers(lab.keys.dead_ids) == {"B", "C"} == set(lab.dead())


def test_a_deleted_dead_letter_that_fails_again_is_listed_once(lab: Lab) -> None:
    lab.end(lab.leased("other"), "dead")
    lab.end(lab.leased("X"), "dead")
    lab.raw.sadd(lab.keys.dead_ids, "left by an error")
    lab.raw.delete(lab.keys.job("X"))
    lab.end(lab.leased("X"), "dead")
    assert lab.dead() == ["X", "other"]


@pytest.mark.parametrize("foreign", [False, True])
def test_dead_letters_that_the_set_does_not_know_are_listed_once(lab: Lab, foreign: bool) -> None:
    """Those of an earlier version, and of a set that is none."""
    for name in ("X", "other"):
        lab.end(lab.leased(name), "dead")
    lab.raw.delete(lab.keys.dead_ids)
    if foreign:
        lab.raw.set(lab.keys.dead_ids, "foreign")
    lab.raw.delete(lab.keys.job("X"))
    assert lab.end(lab.leased("X"), "dead") == "ok"
    assert lab.dead() == ["X", "other"]


@pytest.mark.parametrize("again", ["retry", "raw", "enqueue", "cancel"])
def test_a_job_that_left_the_dead_letters_is_not_looked_for_in_them(lab: Lab, again: str) -> None:
    lab.end(lab.leased("X"), "dead")
    if again == "retry":
        lab.dead_retry("X")
    elif again == "enqueue":
        lab.raw.hset(lab.keys.job("X"), "status", "queued")
        lab.enqueue(NewJob("X", 1, {"type": "mail"}))
    else:
        lab.put("X")
        lab.cancel("X") if again == "cancel" else lab.claim_one()
    assert (lab.dead(), lab.raw.exists(lab.keys.dead_ids)) == ([], 0)


def test_an_id_trimmed_from_the_dead_letters_that_lives_again_gets_no_ttl(lab: Lab) -> None:
    lab.end(lab.leased("old"), "dead")
    lab.hset("old")
    lab.raw.persist(lab.keys.job("old"))
    lab.settle(order(lab.leased("new"), "dead"), dead_max=1)
    assert lab.dead() == ["new"]
    assert lab.ttl("old") == -1


def test_the_list_of_the_ended_is_bounded(lab: Lab) -> None:
    lab.raw.rpush(lab.keys.finished, *range(1500))
    lab.end(lab.leased("X"))
    ended = lab.raw.lrange(lab.keys.finished, 0, -1)
    assert (len(ended), ended[0]) == (1000, "X")


# Counters


def test_counters_are_conserved(lab: Lab) -> None:
    for n, to in enumerate((*ALL_ENDS, "completed", "dead")):
        lab.end(lab.leased(f"j{n}", score=-n), to)
    lab.put("running", score=-99)
    lab.claim_one()
    lab.put("cancelled")
    lab.cancel("cancelled")
    counts = lab.counters()
    assert (counts["entered"], counts["completed"], counts["failed"], counts["cancelled"]) == (9, 2, 2, 1)
    assert (counts["returned"], counts["retried"], counts["snoozed"], counts["interrupted"]) == (1, 1, 1, 1)


# Errors


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "dead"])
def test_a_key_of_a_wrong_type_stops_a_settle_before_it_writes(lab: Lab, name: str) -> None:
    orders = [order(lab.leased(to), to) for to in ("completed", "retrying", "ready", "dead")]
    lab.raw.delete(getattr(lab.keys, name))
    lab.raw.set(getattr(lab.keys, name), "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.settle(*orders)
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


@pytest.mark.parametrize("name", ["counters", "finished"])
def test_a_key_for_people_of_a_wrong_type_costs_no_result(lab: Lab, name: str) -> None:
    claimed = lab.leased("X")
    lab.raw.delete(getattr(lab.keys, name))
    lab.raw.set(getattr(lab.keys, name), "foreign")
    assert lab.end(claimed) == "ok"
    assert lab.where("X") == []


def test_scripts_that_were_flushed_are_sent_again(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.raw.script_flush()
    assert lab.end(claimed) == "ok"


def test_a_user_who_may_not_read_jobs_loses_no_result(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.raw.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "+@all", "&*", f"~{lab.keys.ready}*")
    path = lab.raw.connection_pool.connection_kwargs["path"]
    link = Lab(f"unix://narrow:pw@{path}", lab.keys)
    try:
        with pytest.raises(StoreError):
            link.end(claimed)
        with pytest.raises(StoreError):
            link.beat("w1", ("X", 1))
        with pytest.raises(StoreError):
            link.checkpoint("w1", "X", 1)
        lab.lapse("X")
        with pytest.raises(StoreError):
            link.lapsed()
    finally:
        link.close()
        lab.raw.execute_command("ACL", "DELUSER", "narrow")
    assert lab.end(claimed) == "ok"


def test_at_maxmemory_only_the_enqueue_is_refused(redis_server: RedisServer, lab: Lab) -> None:
    with RedisServer(redis_server.binary) as server:
        full = Lab(server.url, lab.keys)
        try:
            _all_but_enqueue_succeed(full)
        finally:
            full.close()


def _all_but_enqueue_succeed(lab: Lab) -> None:
    claimed = {name: lab.leased(name) for name in (*ALL_ENDS, "lapse", "run")}
    lab.enqueue(NewJob("due", 1, {"type": "mail"}, delay=1000))
    lab.make_due("due")
    lab.put("waiting", score=99)
    lab.put("film", "film", score=98)
    lab.zadd("nohash", 97)
    lab.lapse("lapse")
    _fill(lab)
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.enqueue(NewJob("Y", 1, {"type": "mail"}), NewJob("Z", 1, {"type": "mail"}, delay=9))
    assert error.value.fault is StoreFault.FULL
    assert lab.snapshot() == before
    for to in ALL_ENDS:
        _fill(lab)
        assert lab.end(claimed[to], to) == "ok"
    fence = claimed["run"].fence
    _fill(lab)
    assert lab.beat("w1", ("run", fence)) == []
    assert lab.raw.exists(lab.keys.daemon("w1")) == 1
    _fill(lab)
    assert lab.progress("w1", "run", fence) == 0
    _fill(lab)
    assert lab.checkpoint("w1", "run", fence)
    lapses = lab.lapsed()
    _fill(lab)
    assert lab.settle(*lapse_orders(lapses)) == ["ok"]
    _fill(lab)
    assert lab.promote().moved == 1
    _fill(lab)
    assert set(lab.claim_ids()) == {"due", "waiting", "ready", "lapse"}
    assert lab.where("film") == ["held:type:film"]
    _fill(lab)
    assert lab.cancel("film") == ["removed"]
    _fill(lab)
    assert lab.dead_retry("dead") == ["retried"]
    lab.raw.zrem(lab.keys.active, "run")
    _fill(lab)
    assert ("run", "restored") in lab.walk()


def _fill(lab: Lab) -> None:
    """Set maxmemory just under what is used, and see that a plain write is refused."""
    lab.raw.config_set("maxmemory", lab.raw.info("memory")["used_memory"] - 4096)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        lab.raw.set("probe", "x")


def test_a_settlement_names_its_run_in_full(lab: Lab) -> None:
    claimed = lab.leased("X", "w1")
    lab.end(claimed, "ready")
    # A run of the same fence by another worker did not send that settle.
    assert lab.settle(Settlement("X", "w2", claimed.fence, "ready", "interruptions")) == ["stale"]


def test_a_sweep_cut_short_again_and_again_charges_one_crash(lab: Lab) -> None:
    """An error that lasts must not convict: each sweep finds the same run, which was charged already."""
    lab.leased("X")
    for _ in range(3):
        lab.lapse("X")
        _cut_short_once_recorded(lab, running.settle(lab.keys, lapse_orders(lab.lapsed()), dead_max=9, trimmed_ttl=9))
        assert (lab.field("X", "crashes"), "active" in lab.where("X")) == ("1", True)
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed())) == ["ok"]
    assert (lab.field("X", "crashes"), lab.where("X")) == ("1", ["ready"])


def _cut_short_once_recorded(lab: Lab, call: Call[list[str]]) -> None:
    """Let the script fail at its ZREM: the end is written, the lease is not taken out."""
    source = call.script.source.replace(b"redis.call('ZREM', active, unpack(left))", b"error('injected')")
    assert source != call.script.source
    with pytest.raises(StoreError):
        lab.run(replace(call, script=Script("settle", source, hashlib.sha1(source).hexdigest())))
