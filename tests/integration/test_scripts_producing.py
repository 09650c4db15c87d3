"""Producing: enqueue, cancel, and a new chance for dead letters."""

from __future__ import annotations

import pytest

from jobqd.errors import StoreError, StoreFault
from jobqd.store import running
from jobqd.store.producing import NewJob
from tests.support.lab import DAY, Lab


def new(job_id: str = "X", priority: int = 10, **options: float) -> NewJob:
    return NewJob(job_id, priority, {"type": "mail", "payload": "{}"}, **options)


# Enqueue


def test_a_new_job_is_ready(lab: Lab) -> None:
    assert lab.enqueue(new()).existing == [""]
    job = lab.job("X")
    assert (job["status"], job["type"], job["priority"], job["payload"]) == ("queued", "mail", "10", "{}")
    assert abs(float(job["created_at"]) - lab.now()) < 5
    assert lab.where("X") == ["ready"]
    assert lab.claim_ids() == ["X"]


@pytest.mark.parametrize("when", ["delay", "at"])
def test_a_delayed_job_is_scheduled(lab: Lab, when: str) -> None:
    lab.enqueue(new(delay=100.0) if when == "delay" else new(at=lab.now() + 100))
    assert (lab.status("X"), lab.where("X")) == ("scheduled", ["scheduled"])
    assert 95 < lab.raw.zscore(lab.keys.scheduled, "X") - lab.now() <= 100


def test_equals_run_first_in_first_out(lab: Lab) -> None:
    for name in ("c", "a", "b"):
        lab.enqueue(new(name))
    assert lab.claim_ids() == ["c", "a", "b"]


@pytest.mark.parametrize("priority", [0, 10, 1000, -7])
def test_five_hundred_of_one_call_keep_their_order(lab: Lab, priority: int) -> None:
    names = [str(n * 7919 % 500) for n in range(500)]
    lab.enqueue(*(new(name, priority) for name in names))
    assert lab.claim_ids(want=500) == names


def test_priorities_of_one_call_are_kept_apart(lab: Lab) -> None:
    lab.enqueue(new("d", 20), new("c", 20), new("b", 10), new("a", 10))
    assert lab.claim_ids() == ["b", "a", "d", "c"]


@pytest.mark.parametrize("state", ["ready", "scheduled", "active", "held", "completed", "dead", "cancelled"])
def test_an_id_that_exists_is_left_as_it_is(lab: Lab, state: str) -> None:
    statuses = {"ready": "queued", "held": "queued", "active": "processing", "dead": "failed"}
    lab.enqueue(NewJob("X", 5, {"type": "film"}, delay=1000 if state == "scheduled" else None))
    if state in ("completed", "dead"):
        lab.end(lab.claim_one(types={"film": -1}), state)
    elif state == "active":
        lab.claim_one(types={"film": -1})
    elif state == "held":
        lab.claim()
    elif state == "cancelled":
        lab.cancel("X")
    before = lab.snapshot()
    assert lab.enqueue(new()).existing == [statuses.get(state, state)]
    assert lab.snapshot() == before


def test_the_same_id_twice_in_one_call_is_one_job(lab: Lab) -> None:
    assert lab.enqueue(new("X"), new("X")).existing == ["", "queued"]
    assert lab.enqueue(new("Y", delay=9.0), new("Y")).existing == ["", "scheduled"]
    assert (lab.claim_ids(), lab.where("Y")) == (["X"], ["scheduled"])


def test_an_enqueue_makes_a_hash_count_that_never_got_into_an_index(lab: Lab) -> None:
    lab.hset("X", "film", source="in.mp4")
    assert lab.enqueue(new()).existing == ["queued"]
    assert lab.where("X") == ["ready"]
    job = lab.job("X")
    assert (job["type"], job["source"], job["payload"]) == ("film", "in.mp4", "{}")


def test_an_enqueue_makes_an_ended_hash_count_that_was_only_queued_again(lab: Lab) -> None:
    lab.end(lab.leased("X"))
    lab.hset("X")
    assert lab.enqueue(new()).existing == ["queued"]
    assert (lab.where("X"), lab.ttl("X")) == (["ready"], -1)
    assert lab.claim_one().attempts == 0


def test_a_hash_of_the_applications_own_refuses_the_call_with_nothing_written(lab: Lab) -> None:
    lab.raw.hset(lab.keys.job("55"), mapping={"title": "a film", "status": "open"})
    assert lab.enqueue(new("A"), new("55")).taken == "55"
    assert lab.raw.hgetall(lab.keys.job("55")) == {"title": "a film", "status": "open"}
    assert lab.raw.exists(lab.keys.ready, lab.keys.job("A")) == 0


def test_a_time_long_past_does_not_make_a_new_job_too_old(lab: Lab) -> None:
    lab.enqueue(NewJob("X", 5, {"type": "film"}, at=lab.now() - 90 * DAY))
    assert abs(lab.raw.zscore(lab.keys.scheduled, "X") - lab.now()) < 5
    lab.run(running.promote(lab.keys))
    assert abs(float(lab.job("X")["_due_at"]) - lab.now()) < 5


def test_a_delayed_enqueue_of_such_a_hash_forgets_the_older_job(lab: Lab) -> None:
    lab.end(lab.leased("X"), "dead")
    lab.set("X", _due_at="1000.000000")
    lab.hset("X")
    lab.enqueue(new(delay=100.0))
    assert (lab.where("X"), lab.status("X"), lab.dead()) == (["scheduled"], "scheduled", [])
    assert not {"finished_at", "_due_at", "attempts", "error", "_history"} & lab.job("X").keys()
    assert lab.walk() == []


def test_an_enqueue_that_was_cut_short_can_be_sent_again(lab: Lab) -> None:
    lab.raw.hset(lab.keys.job("X"), mapping={"status": "scheduled", "created_at": "1"})
    lab.enqueue(new(delay=100.0))
    assert (lab.where("X"), lab.field("X", "type")) == (["scheduled"], "mail")


def test_an_id_that_waits_for_its_hash_runs_once(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.enqueue(new())
    assert lab.where("X") == ["ready"]
    assert lab.raw.exists(lab.keys.missing) == 0
    lab.promote()
    assert lab.claim_ids() == ["X"]
    assert lab.where("X") == ["active"]


def test_beyond_max_ready_nothing_is_written(lab: Lab) -> None:
    lab.enqueue(new("A"), new("B"))
    before = lab.snapshot()
    assert lab.enqueue(new("C"), new("D"), max_ready=3).full == 2
    assert lab.snapshot() == before
    assert lab.enqueue(new("A"), new("C"), max_ready=3).full is None


def test_a_list_in_place_of_a_hash_refuses_the_call_with_nothing_written(lab: Lab) -> None:
    lab.raw.lpush(lab.keys.job("X"), "x")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.enqueue(new("A"), new("X"))
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


@pytest.mark.parametrize("name", ["ready", "scheduled"])
def test_an_index_of_a_wrong_type_refuses_the_call_with_nothing_written(lab: Lab, name: str) -> None:
    lab.raw.set(getattr(lab.keys, name), "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.enqueue(new("A"), new("B", delay=5.0))
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


def test_a_delay_beyond_all_times_is_not_read_as_milliseconds(lab: Lab) -> None:
    lab.enqueue(new("A", delay=1e12), new("B", at=1.9e12))
    assert lab.promote().corrected == [("B", "milliseconds")]
    assert lab.raw.zrange(lab.keys.scheduled, 0, -1, withscores=True) == [("B", 1.9e9), ("A", 1e11)]


@pytest.mark.parametrize("due", [float("nan"), float("inf")])
def test_a_due_time_that_is_no_number_refuses_the_call_with_nothing_written(lab: Lab, due: float) -> None:
    with pytest.raises(StoreError):
        lab.enqueue(new("A"), new("B", delay=due))
    assert lab.snapshot() == {}


def test_fields_beyond_the_stack_of_lua(lab: Lab) -> None:
    fields = {f"f{n}": n for n in range(3000)}
    lab.enqueue(NewJob("X", 1, {"type": "mail", **fields}))
    assert len(lab.job("X")) == 3000 + 4


# Cancel


@pytest.mark.parametrize(
    ("state", "answer"), [("ready", "removed"), ("scheduled", "removed"), ("held", "removed"), ("active", "cancelled")]
)
def test_cancel_is_terminal_at_once_wherever_the_job_is(lab: Lab, state: str, answer: str) -> None:
    lab.enqueue(NewJob("X", 5, {"type": "film"}, delay=1000 if state == "scheduled" else None))
    if state in ("active", "held"):
        lab.claim(types={"film": -1} if state == "active" else {})
    assert lab.where("X")[0].startswith(state)
    assert lab.cancel("X") == [answer]
    job = lab.job("X")
    assert (job["status"], "held" in job) == ("cancelled", False)
    assert abs(float(job["finished_at"]) - lab.now()) < 5
    assert lab.where("X") == []
    assert DAY - 5 < lab.ttl("X") <= DAY
    assert lab.raw.exists(lab.keys.held, lab.keys.held_for("type:film")) == 0
    assert lab.raw.lrange(lab.keys.finished, 0, -1) == ["X"]
    assert (lab.counters()["entered"], lab.counters()["cancelled"]) == (1, 1)


def test_cancel_leaves_a_hash_of_the_applications_own_alone(lab: Lab) -> None:
    lab.raw.hset(lab.keys.job("55"), mapping={"title": "a film", "status": "open"})
    assert lab.cancel("55") == ["gone"]
    assert lab.raw.hgetall(lab.keys.job("55")) == {"title": "a film", "status": "open"}
    assert (lab.ttl("55"), lab.counters()) == (-1, {})
    # With a ZADD it is a job, though one without a type.
    lab.zadd("55")
    assert lab.cancel("55") == ["removed"]


def test_cancel_costs_the_same_however_many_types_wait(lab: Lab) -> None:
    for number in range(100):
        lab.put(f"job-{number}", f"type-{number}", score=number)
    lab.claim(types={})
    assert lab.raw.scard(lab.keys.held) == 100
    lab.raw.config_resetstat()
    assert lab.cancel(*(f"job-{number}" for number in range(10))) == ["removed"] * 10
    assert int(lab.raw.info("commandstats")["cmdstat_zrem"]["calls"]) <= 10 * 6 + 1
    assert lab.raw.scard(lab.keys.held) == 90


def test_cancel_of_an_id_that_waits_for_its_hash(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.hset("X")
    assert lab.cancel("X") == ["removed"]
    assert lab.raw.exists(lab.keys.missing, lab.keys.held_for("missing"), lab.keys.held) == 0


def test_cancel_of_a_running_job_tells_its_daemon_and_subscribers(lab: Lab) -> None:
    lab.leased("X")
    lab.put("Y", score=99)
    with lab.raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(lab.keys.control, lab.keys.progress("X"), lab.keys.progress("Y"))
        for _ in range(3):
            channel.get_message(timeout=1)
        lab.cancel("X", "Y")
        messages = [channel.get_message(timeout=2) for _ in range(3)]
    found = {(message["channel"], message["data"]) for message in messages if message}
    said = '{"status":"cancelled"}'
    assert found == {
        (lab.keys.progress("X"), said), (lab.keys.control, "cancel X"), (lab.keys.progress("Y"), said),
    }  # fmt: skip


def test_cancel_of_what_is_not_there_or_has_ended(lab: Lab) -> None:
    lab.end(lab.leased("done"))
    lab.end(lab.leased("dead"), "dead")
    lab.put("twice")
    lab.cancel("twice")
    lab.raw.lpush(lab.keys.job("list"), "x")
    before = lab.snapshot()
    assert lab.cancel("done", "dead", "twice", "list", "nobody") == ["completed", "failed", "already", "gone", "gone"]
    assert lab.snapshot() == before


def test_cancel_names_the_same_id_twice_and_counts_once(lab: Lab) -> None:
    lab.put("X")
    assert lab.cancel("X", "X") == ["removed", "removed"]
    assert lab.counters()["cancelled"] == 1


def test_cancel_of_a_dead_letter_that_was_queued_again(lab: Lab) -> None:
    lab.end(lab.leased("X"), "dead")
    lab.put("X")
    assert lab.cancel("X") == ["removed"]
    assert lab.dead() == []
    counts = lab.counters()
    assert (counts["entered"], counts["failed"], counts["cancelled"]) == (2, 1, 1)


def test_cancel_does_not_touch_the_neighbours_in_a_held_set(lab: Lab) -> None:
    for name in ("A", "B"):
        lab.put(name, "film")
    lab.claim()
    lab.cancel("A")
    assert lab.where("B") == ["held:type:film"]


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "missing"])
def test_a_key_of_a_wrong_type_stops_a_cancel_before_it_writes(lab: Lab, name: str) -> None:
    lab.hset("X")
    lab.raw.set(getattr(lab.keys, name), "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.cancel("X")
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


# A new chance for dead letters


def test_a_dead_letter_is_retried_with_its_checkpoint_and_new_attempts(lab: Lab) -> None:
    claimed = lab.leased("X", score=4, attempts=8, crashes=2, interruptions=1)
    lab.checkpoint("w1", "X", claimed.fence, "{}")
    lab.end(claimed, "dead", traceback="t")
    assert lab.dead_retry("X") == ["retried"]
    job = lab.job("X")
    gone = {"attempts", "crashes", "interruptions", "error", "error_type", "traceback", "finished_at", "_due_at"}
    assert not gone & job.keys()
    assert (job["status"], job["checkpoint"]) == ("queued", "{}")
    assert (lab.where("X"), lab.dead(), lab.ttl("X")) == (["ready"], [], -1)
    assert 4 < lab.raw.zscore(lab.keys.ready, "X") < 5
    again = lab.claim_one("w2")
    assert (again.attempts, again.fence, again.fields["checkpoint"]) == (0, 2, "{}")
    assert lab.end(again, worker="w2") == "ok"
    counts = lab.counters()
    assert (counts["entered"], counts["failed"], counts["completed"]) == (2, 1, 1)


def test_only_dead_letters_are_retried(lab: Lab) -> None:
    lab.end(lab.leased("done"))
    lab.leased("running")
    lab.put("waiting", score=99)
    lab.put("cancelled", score=99)
    lab.cancel("cancelled")
    lab.raw.lpush(lab.keys.job("list"), "x")
    before = lab.snapshot()
    answers = lab.dead_retry("done", "running", "waiting", "cancelled", "nobody", "list")
    assert answers == ["completed", "processing", "queued", "cancelled", "gone", "gone"]
    assert lab.snapshot() == before


def test_a_retry_sent_twice_is_one_run(lab: Lab) -> None:
    lab.end(lab.leased("X"), "dead")
    assert lab.dead_retry("X", "X") == ["retried", "queued"]
    assert lab.dead_retry("X") == ["queued"]
    assert lab.claim_ids() == ["X"]


def test_the_settle_of_the_failed_run_sent_again_does_not_end_the_retry(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.end(claimed, "dead")
    lab.dead_retry("X")
    again = lab.claim_one("w2")
    assert lab.end(claimed, "dead") == "stale"
    assert lab.end(again, worker="w2") == "ok"


@pytest.mark.parametrize("forged", ["abc", "nan", "inf", "-inf", "1e308"])
def test_a_forged_priority_of_a_dead_letter_counts_as_nought(lab: Lab, forged: str) -> None:
    for name in ("bad", "good"):
        lab.end(lab.leased(name), "dead")
    lab.set("bad", priority=forged)
    assert lab.dead_retry("bad", "good") == ["retried", "retried"]
    assert 0 <= lab.raw.zscore(lab.keys.ready, "bad") < 1


@pytest.mark.parametrize("name", ["ready", "dead"])
def test_a_key_of_a_wrong_type_stops_a_retry_before_it_writes(lab: Lab, name: str) -> None:
    lab.end(lab.leased("X"), "dead")
    lab.raw.delete(getattr(lab.keys, name))
    lab.raw.set(getattr(lab.keys, name), "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.dead_retry("X")
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before
