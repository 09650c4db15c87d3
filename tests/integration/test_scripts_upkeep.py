"""Upkeep: lapsed leases, due jobs, beats, progress, checkpoints, and the slow walk."""

from __future__ import annotations

import json

import pytest

from jobqd.duties.promote import Promoter
from jobqd.errors import StoreError, StoreFault
from jobqd.store import Link, running
from jobqd.store.producing import NewJob
from tests.support.lab import DAY, Lab, lapse_orders
from tests.support.log import RecordingLog

# Lapsed leases


def test_only_leases_that_ran_out_are_listed(lab: Lab) -> None:
    for name in ("A", "B", "C"):
        lab.leased(name)
    lab.lapse("B")
    found = lab.lapsed()
    assert [(lapse.job.id, lapse.worker, lapse.job.fence) for lapse in found] == [("B", "w1", 1)]
    assert found[0].job.type == "mail"
    assert lab.where("B") == ["active"]


@pytest.mark.parametrize("score", ["+inf", "1e300", "1.8e12", "2 days"])
def test_a_lease_longer_than_any_daemons_has_lapsed(lab: Lab, score: str) -> None:
    for name in ("A", "B"):
        lab.leased(name)
    score = str(lab.now() + 2 * DAY) if score == "2 days" else score
    lab.raw.execute_command("ZADD", lab.keys.active, score, "A")
    found = lab.lapsed()
    assert [lapse.job.id for lapse in found] == ["A"]
    assert lab.settle(*lapse_orders(found)) == ["ok"]
    assert (lab.where("A"), lab.field("A", "crashes"), lab.where("B")) == (["ready"], "1", ["active"])


def test_a_lease_of_an_hour_has_not_lapsed(lab: Lab) -> None:
    lab.put("X")
    lab.claim(lease=3600.0)
    assert lab.lapsed() == []


def test_no_more_leases_are_listed_than_were_asked_for(lab: Lab) -> None:
    for name in "ABCD":
        lab.leased(name)
    lab.raw.zadd(lab.keys.active, {"A": 1, "B": 2, "C": 1e300, "D": 1e300})
    for limit, expected in ((1, ["A"]), (3, ["A", "B", "C"])):
        assert [lapse.job.id for lapse in lab.lapsed(limit=limit)] == expected


def test_a_lapse_brings_what_decides_its_fate(lab: Lab) -> None:
    fields = {"attempts": "3", "crashes": "2", "interruptions": "1", "max_attempts": "9", "timeout": "5"}
    lab.leased("X", **fields, traceback="long")
    lab.lapse("X")
    job = lab.lapsed()[0].job
    assert {name: job.fields[name] for name in fields} == fields
    assert "traceback" not in job.fields
    assert float(job.fields["_due_at"]) > 0


@pytest.mark.parametrize("name", ["worker", "type", "timeout", "_due_at", "crashes"])
def test_what_a_producer_made_large_is_not_sent_with_a_lapse(lab: Lab, name: str) -> None:
    lab.leased("X")
    lab.set("X", **{name: "1" * 5000})
    lab.lapse("X")
    found = lab.lapsed()
    assert (name in found[0].job.fields, found[0].job.fence) == (False, 1)
    assert lab.settle(*lapse_orders(found)) == ["ok"]
    assert lab.where("X") == ["ready"]


def test_a_dead_daemons_jobs_are_listed_and_no_others(lab: Lab) -> None:
    for n in range(6):
        lab.leased(f"j{n}", f"w{n % 2}")
    mine = lab.lapsed(dead_worker="w1")
    assert sorted(lapse.job.id for lapse in mine) == ["j1", "j3", "j5"]
    assert {lapse.worker for lapse in mine} == {"w1"}
    others = [lab.job(f"j{n}") for n in (0, 2, 4)]
    assert lab.settle(*lapse_orders(mine, "dead")) == ["ok"] * 3
    assert [lab.where(f"j{n}") for n in range(6)] == [["active"], ["ready"]] * 3
    assert [lab.job(f"j{n}") for n in (0, 2, 4)] == others


def test_a_dead_daemons_jobs_are_listed_page_by_page(lab: Lab) -> None:
    for n in range(300):
        lab.put(f"j{n}")
    lab.claim(want=300)
    found, cursor, pages = set(), "0", 0
    while pages == 0 or cursor != "0":
        page = lab.run(running.lapsed(lab.keys, dead_worker="w1", cursor=cursor, limit=50))
        found |= {lapse.job.id for lapse in page.lapses}
        cursor, pages = page.cursor, pages + 1
    assert len(found) == 300
    assert pages > 3


def test_no_more_than_the_limit_are_listed(lab: Lab) -> None:
    for n in range(3):
        lab.leased(f"j{n}")
        lab.lapse(f"j{n}")
    assert len(lab.lapsed(limit=2)) == 2


@pytest.mark.parametrize("end", ["completed", "dead", "cancelled"])
def test_an_active_entry_of_an_ended_job_is_cleared_away(lab: Lab, end: str) -> None:
    claimed = lab.leased("X")
    lab.cancel("X") if end == "cancelled" else lab.end(claimed, end)
    lab.raw.zadd(lab.keys.active, {"X": 1})
    assert lab.lapsed() == []
    assert lab.where("X") == []


def test_an_active_entry_without_a_hash_is_cleared_away_and_counted(lab: Lab) -> None:
    lab.raw.zadd(lab.keys.active, {"X": 1})
    assert lab.lapsed() == []
    assert lab.where("X") == []
    assert lab.counters()["vanished"] == 1


def test_an_active_entry_whose_hash_was_replaced_is_given_back(lab: Lab) -> None:
    old = lab.leased("X")
    lab.raw.delete(lab.keys.job("X"))
    lab.put("X")
    assert lab.claim_ids() == []
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed())) == ["ok"]
    assert lab.where("X") == ["ready"]
    assert lab.end(old) == "stale"


def test_a_forged_fence_of_an_active_job_can_still_lapse(lab: Lab) -> None:
    lab.leased("X")
    lab.set("X", fence="abc")
    lab.lapse("X")
    assert lab.settle(*lapse_orders(lab.lapsed())) == ["ok"]


# Promote


def test_due_jobs_become_ready_at_their_priority(lab: Lab) -> None:
    lab.enqueue(NewJob("X", 5, {"type": "mail"}, delay=1000), NewJob("later", 5, {"type": "mail"}, delay=1000))
    assert lab.promote().moved == 0
    lab.make_due("X")
    promotion = lab.promote()
    assert promotion.moved == 1
    assert promotion.next_due is not None
    assert 990 < promotion.next_due <= 1000
    assert (lab.where("X"), lab.status("X"), lab.where("later")) == (["ready"], "queued", ["scheduled"])
    assert abs(lab.raw.zscore(lab.keys.ready, "X") - (5 + lab.now() / 1e10)) < 1e-8


def test_nothing_due_says_so(lab: Lab) -> None:
    assert lab.promote().next_due is None


@pytest.mark.parametrize("age", [0.0, 29 * DAY, 400 * DAY])
def test_a_job_is_first_due_at_its_scheduled_time(lab: Lab, age: float) -> None:
    due = f"{lab.now() - age:.6f}"
    lab.enqueue(NewJob("X", 5, {"type": "mail"}, delay=1000))
    lab.raw.zadd(lab.keys.scheduled, {"X": due})
    lab.promote()
    assert lab.field("X", "_due_at") == due
    assert lab.counters()["entered"] == 1
    lab.claim(max_age=1e12)
    assert lab.counters()["entered"] == 1


@pytest.mark.parametrize("score", ["0", "-inf", "-5", "1", "999999999"])
def test_a_raw_delay_that_cannot_be_meant_does_not_make_a_new_job_too_old(lab: Lab, score: str) -> None:
    lab.hset("X", status="scheduled")
    lab.raw.execute_command("ZADD", lab.keys.scheduled, score, "X")
    lab.promote()
    assert abs(float(lab.job("X")["_due_at"]) - lab.now()) < 5
    claimed = lab.claim_one()
    assert claimed.claimed_at - float(claimed.fields["_due_at"]) < 5


def test_a_time_in_milliseconds_is_read_as_such(lab: Lab) -> None:
    now = lab.now()
    for job_id, due in (("past", now - 60), ("future", now + 60)):
        lab.hset(job_id, status="scheduled")
        lab.raw.zadd(lab.keys.scheduled, {job_id: round(due * 1000)})
    promotion = lab.promote()
    assert promotion.corrected == [("past", "milliseconds"), ("future", "milliseconds")]
    assert (promotion.moved, promotion.next_due) == (0, 0.0)
    promotion = lab.promote()
    assert (promotion.moved, promotion.corrected) == (1, [])
    assert 50 < (promotion.next_due or 0) <= 60
    assert (lab.where("past"), lab.where("future"), lab.status("future")) == (["ready"], ["scheduled"], "scheduled")
    assert abs(lab.raw.zscore(lab.keys.scheduled, "future") - now - 60) < 0.01


@pytest.mark.parametrize("score", ["inf", "1e308", "1.1e14"])
def test_a_time_that_never_comes_is_told_once_and_kept_in_bounds(lab: Lab, score: str) -> None:
    lab.hset("X", status="scheduled")
    lab.raw.execute_command("ZADD", lab.keys.scheduled, score, "X")
    assert lab.promote().corrected == [("X", "never")]
    assert lab.raw.zscore(lab.keys.scheduled, "X") == 1e11
    assert lab.promote().corrected == []
    assert lab.where("X") == ["scheduled"]


def test_what_is_due_at_no_time_and_is_no_job_is_dropped(lab: Lab) -> None:
    lab.end(lab.leased("done"))
    lab.raw.zadd(lab.keys.scheduled, {"nothing": 1e300, "done": 1e300})
    promotion = lab.promote()
    assert (promotion.dropped, promotion.corrected) == ([("nothing", "no hash")], [])
    assert lab.raw.exists(lab.keys.scheduled) == 0


async def test_times_in_milliseconds_make_one_line(lab: Lab, link: Link) -> None:
    log = RecordingLog()
    for n in range(3):
        lab.hset(f"j{n}")
        lab.raw.zadd(lab.keys.scheduled, {f"j{n}": 1.8e12 + n})
    await Promoter(link, lab.keys, log).run_once()
    assert log.of("schedule.milliseconds") == [{"count": 3, "first": "j0"}]


def test_a_retry_keeps_the_time_it_was_first_due(lab: Lab) -> None:
    claimed = lab.leased("X")
    due = lab.field("X", "_due_at")
    lab.end(claimed, "retrying")
    lab.make_due("X")
    lab.promote()
    assert lab.field("X", "_due_at") == due
    assert lab.counters()["entered"] == 1


@pytest.mark.parametrize("forged", ["abc", "nan", "inf", "-inf", "1e308"])
def test_a_forged_priority_counts_as_nought(lab: Lab, forged: str) -> None:
    for name in ("bad", "good"):
        lab.enqueue(NewJob(name, 5, {"type": "mail"}, delay=1000))
        lab.make_due(name)
    lab.set("bad", priority=forged)
    assert lab.promote().moved == 2
    assert 0 <= lab.raw.zscore(lab.keys.ready, "bad") < 1


def test_a_due_job_that_is_ready_already_keeps_its_place(lab: Lab) -> None:
    lab.enqueue(NewJob("X", 5, {"type": "mail"}, delay=1000))
    lab.put("X", score=2)
    lab.make_due("X")
    lab.promote()
    assert lab.raw.zscore(lab.keys.ready, "X") == 2
    assert lab.where("X") == ["ready"]


def test_a_due_entry_of_a_running_job_is_cleared_away(lab: Lab) -> None:
    lab.leased("X")
    lab.raw.zadd(lab.keys.scheduled, {"X": 1})
    assert lab.promote().moved == 0
    assert (lab.where("X"), lab.status("X")) == (["active"], "processing")


@pytest.mark.parametrize("end", ["completed", "dead"])
def test_a_due_entry_of_an_ended_job_is_cleared_away(lab: Lab, end: str) -> None:
    lab.end(lab.leased("X"), end)
    lab.raw.zadd(lab.keys.scheduled, {"X": 1})
    before = lab.job("X")
    lab.promote()
    assert (lab.where("X"), lab.job("X")) == ([], before)


def test_due_entries_without_a_job_are_dropped_and_cost_no_neighbour(lab: Lab) -> None:
    lab.raw.lpush(lab.keys.job("list"), "x")
    lab.raw.zadd(lab.keys.scheduled, {"list": 1, "nohash": 2})
    lab.enqueue(NewJob("X", 5, {"type": "mail"}, delay=1000))
    lab.make_due("X")
    promotion = lab.promote()
    assert promotion.dropped == [("list", "not a hash"), ("nohash", "no hash")]
    assert promotion.moved == 1
    assert (lab.where("list"), lab.where("nohash"), lab.where("X")) == ([], [], ["ready"])


@pytest.mark.parametrize("score", ["-inf", "inf", "-5"])
def test_any_due_time_is_borne(lab: Lab, score: str) -> None:
    lab.hset("X")
    lab.raw.execute_command("ZADD", lab.keys.scheduled, score, "X")
    promotion = lab.promote()
    assert lab.where("X") == (["scheduled"] if score == "inf" else ["ready"])
    assert promotion.next_due == (3600 if score == "inf" else None)


def test_a_late_hash_of_a_job_that_runs_by_now_is_left_alone(lab: Lab) -> None:
    lab.zadd("X")
    lab.claim()
    lab.hset("X")
    lab.raw.zadd(lab.keys.active, {"X": lab.now() + 15})
    lab.raw.zadd(lab.keys.missing, {"X": 1000})
    lab.promote()
    assert lab.where("X") == ["active"]


def test_many_ids_without_a_hash_do_not_bar_one_whose_hash_came_late(lab: Lab) -> None:
    since = lab.now() - 3
    lab.raw.zadd(lab.keys.missing, {f"none-{number}": since for number in range(1000)})
    lab.raw.zadd(lab.keys.held_for("missing"), {f"none-{number}": 10 for number in range(1000)})
    lab.raw.sadd(lab.keys.held, "missing")
    lab.hset("late")
    lab.raw.zadd(lab.keys.missing, {"late": since + 1})
    lab.raw.zadd(lab.keys.held_for("missing"), {"late": 10})
    assert lab.promote().settled == 1
    assert lab.where("late") == ["ready"]


async def test_many_ids_to_be_given_up_are_done_without_a_pause(lab: Lab, link: Link) -> None:
    lab.raw.zadd(lab.keys.missing, {f"none-{number}": 1000 for number in range(350)})
    promoter = Promoter(link, lab.keys, RecordingLog())
    assert [await promoter.run_once() for _ in range(3)] == [0.0, 0.0, 1.0]
    assert lab.raw.exists(lab.keys.missing) == 0


# Beat


def test_a_beat_renews_by_the_clock_of_redis(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.lapse("X")
    before = lab.now()
    assert lab.beat("w1", ("X", claimed.fence), lease=30) == []
    assert before + 30 <= lab.raw.zscore(lab.keys.active, "X") <= lab.now() + 30


@pytest.mark.parametrize(("worker", "fence"), [("w2", 1), ("w1", 2), ("w1", 0)])
def test_a_beat_of_a_foreign_run_renews_nothing(lab: Lab, worker: str, fence: int) -> None:
    lab.leased("X")
    lab.lapse("X")
    assert lab.beat(worker, ("X", fence)) == [("X", fence, "lost")]
    assert lab.raw.zscore(lab.keys.active, "X") == 1


def test_a_beat_tells_of_a_cancelled_run(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.cancel("X")
    assert lab.beat("w1", ("X", claimed.fence)) == [("X", claimed.fence, "cancelled")]
    assert lab.where("X") == []


def test_a_beat_does_not_revive_a_lease_that_is_gone(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.raw.zrem(lab.keys.active, "X")
    assert lab.beat("w1", ("X", claimed.fence)) == [("X", claimed.fence, "lost")]
    assert lab.where("X") == []


def test_a_list_in_place_of_a_hash_costs_no_neighbour_its_lease(lab: Lab) -> None:
    bad, good = lab.leased("bad"), lab.leased("good")
    lab.raw.delete(lab.keys.job("bad"))
    lab.raw.lpush(lab.keys.job("bad"), "x")
    lab.lapse("good")
    assert lab.beat("w1", ("bad", bad.fence), ("good", good.fence)) == [("bad", bad.fence, "lost")]
    assert lab.raw.zscore(lab.keys.active, "good") > lab.now()


def test_two_thousand_leases_in_one_beat(lab: Lab) -> None:
    ids = [f"j{n:04}" for n in range(2000)]
    for start in range(0, 2000, 500):
        lab.enqueue(*(NewJob(name, 1, {"type": "mail"}) for name in ids[start : start + 500]), max_ready=5000)
    runs = [(job.id, job.fence) for _ in range(4) for job in lab.claim(want=500).jobs]
    lab.raw.zadd(lab.keys.active, dict.fromkeys(ids, 1))
    assert len(runs) == 2000
    assert lab.beat("w1", *runs) == []
    assert lab.raw.zcount(lab.keys.active, "-inf", lab.now()) == 0


def test_a_beat_vouches_for_its_daemon_for_a_lease(lab: Lab) -> None:
    lab.raw.zadd(lab.keys.daemons, {"old": 1})
    lab.beat("w1", lease=15)
    assert lab.raw.zrange(lab.keys.daemons, 0, -1) == ["w1"]
    assert lab.raw.hgetall(lab.keys.daemon("w1")) == {"host": "here"}
    assert 14 <= lab.raw.ttl(lab.keys.daemon("w1")) <= 15


def test_a_foreign_key_in_place_of_presence_costs_no_lease(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.lapse("X")
    lab.raw.set(lab.keys.daemons, "foreign")
    lab.raw.set(lab.keys.daemon("w1"), "foreign")
    assert lab.beat("w1", ("X", claimed.fence)) == []
    assert lab.raw.zscore(lab.keys.active, "X") > lab.now()


# Progress and checkpoint


def test_progress_is_written_and_published(lab: Lab) -> None:
    claimed = lab.leased("X")
    with lab.raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(lab.keys.progress("X"))
        channel.get_message(timeout=1)
        assert lab.progress("w1", "X", claimed.fence, "67") == 0
        message = channel.get_message(timeout=2)
    assert message is not None
    assert json.loads(message["data"]) == {"progress": 67}
    job = lab.job("X")
    assert (job["progress"], job["step"], job["eta_seconds"]) == ("67", "step", "7")


def _not_owned(lab: Lab, how: str) -> tuple[str, int]:
    """Return (worker, fence) of a run that does not own X."""
    claimed = lab.leased("X")
    if how == "inactive":
        lab.raw.zrem(lab.keys.active, "X")
    elif how == "cancelled":
        lab.cancel("X")
    elif how == "not a hash":
        lab.raw.delete(lab.keys.job("X"))
        lab.raw.lpush(lab.keys.job("X"), "x")
    elif how == "deleted":
        lab.raw.delete(lab.keys.job("X"))
    return {"worker": ("w2", claimed.fence), "fence": ("w1", claimed.fence + 1)}.get(how, ("w1", claimed.fence))


@pytest.mark.parametrize("how", ["worker", "fence", "inactive", "cancelled", "not a hash", "deleted"])
def test_progress_and_checkpoint_of_a_run_that_owns_nothing_are_refused(lab: Lab, how: str) -> None:
    worker, fence = _not_owned(lab, how)
    before = lab.snapshot()
    assert lab.progress(worker, "X", fence) == 1
    assert lab.checkpoint(worker, "X", fence) is False
    assert lab.snapshot() == before


def test_refused_progress_costs_no_neighbour(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.progress("w1", "nobody", 1)
    assert lab.progress("w1", "X", claimed.fence) == 0
    assert lab.field("X", "progress") == "50"


def test_a_checkpoint_is_there_for_the_next_run(lab: Lab) -> None:
    claimed = lab.leased("X")
    assert lab.checkpoint("w1", "X", claimed.fence, '{"frame": 7}') is True
    lab.end(claimed, "ready")
    assert lab.claim_one("w2").fields["checkpoint"] == '{"frame": 7}'


def test_a_late_copy_of_a_checkpoint_does_not_replace_a_newer_one(lab: Lab) -> None:
    claimed = lab.leased("X")
    assert lab.checkpoint("w1", "X", claimed.fence, '{"frame": 7}', number=12)
    assert lab.checkpoint("w1", "X", claimed.fence, '{"frame": 1}', number=9)
    assert lab.field("X", "checkpoint") == '{"frame": 7}'


def test_the_checkpoints_of_the_next_run_are_numbered_anew(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.checkpoint("w1", "X", claimed.fence, '{"frame": 7}', number=12)
    lab.end(claimed, "ready")
    again = lab.claim_one("w2")
    assert lab.checkpoint("w2", "X", again.fence, '{"frame": 8}', number=1)
    assert lab.field("X", "checkpoint") == '{"frame": 8}'


def test_the_progress_of_the_last_run_is_not_that_of_the_next(lab: Lab) -> None:
    claimed = lab.leased("X")
    lab.progress("w1", "X", claimed.fence)
    lab.end(claimed, "ready")
    lab.claim_one("w2")
    assert not {"progress", "step", "eta_seconds"} & lab.job("X").keys()


@pytest.mark.parametrize("form", ["{:.6f}", "{:.7f}", "{:.1f}", "{:.0f}", "{!r}"])
@pytest.mark.parametrize("seen_by", ["claim", "hold", "promote", "walk"])
def test_a_due_time_in_the_form_of_an_earlier_version_is_one(lab: Lab, form: str, seen_by: str) -> None:
    due = form.format(lab.now() - 1000)
    lab.hset("X", _due_at=due, status="scheduled" if seen_by == "promote" else "queued")
    if seen_by == "promote":
        lab.raw.zadd(lab.keys.scheduled, {"X": lab.now()})
        lab.promote()
    elif seen_by != "walk":
        lab.zadd("X")
    if seen_by == "walk":
        lab.walk()
        assert lab.where("X") == ["ready"], "it was acknowledged"
    lab.claim(types={} if seen_by == "hold" else {"mail": -1})
    assert (lab.field("X", "_due_at"), lab.counters().get("entered", 0)) == (due, 0)


FORGED_TIMES = ["", "nan", "inf", "-inf", "123", "0x10", "1e3", "9999999999", "9999999999.000000", " 1.000000",
                "1.0000000", "-1.000000", "1.000000\n", "1" * 5000]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED_TIMES)
@pytest.mark.parametrize("seen_by", ["claim", "hold", "promote", "cancel", "walk"])
def test_a_forged_due_time_upsets_no_count(lab: Lab, forged: str, seen_by: str) -> None:
    lab.hset("X", _due_at=forged)
    if seen_by == "promote":
        lab.set("X", status="scheduled")
        lab.raw.zadd(lab.keys.scheduled, {"X": lab.now()})
        lab.promote()
    else:
        lab.zadd("X")
    if seen_by == "hold":
        lab.claim(types={})
    if seen_by == "walk":
        lab.walk()
    if seen_by == "cancel":
        lab.cancel("X")
    else:
        assert lab.counters()["entered"] == (seen_by != "claim")
        claimed = lab.claim_one(max_age=DAY)
        assert claimed.claimed_at - float(claimed.fields.get("_due_at", claimed.claimed_at)) < 5
        lab.end(claimed)
    counters = lab.counters()
    assert (counters["entered"], counters["completed"] + counters["cancelled"]) == (1, 1)


# The walk


@pytest.mark.parametrize("to", ["processing", "retrying", "ready"])
def test_an_acknowledged_job_in_no_index_is_put_back(lab: Lab, to: str) -> None:
    claimed = lab.leased("X", score=4)
    if to != "processing":
        lab.end(claimed, to)
    lab.raw.delete(lab.keys.active, lab.keys.scheduled, lab.keys.ready)
    assert lab.walk() == [("X", "restored")]
    assert (lab.status("X"), lab.where("X")) == ("queued", ["ready"])
    assert lab.raw.zscore(lab.keys.ready, "X") == 4
    if to == "processing":
        assert lab.end(claimed) == "stale"
    assert lab.walk() == []
    assert lab.claim_ids("w2") == ["X"]


def test_a_hash_without_zadd_was_never_acknowledged_and_is_reported_only_when_old(lab: Lab) -> None:
    lab.hset("young", created_at=lab.now() - 500)
    lab.hset("old", created_at=lab.now() - 700)
    lab.hset("old-js", created_at=(lab.now() - 700) * 1000)
    lab.hset("odd", created_at="abc")
    before = lab.snapshot()
    assert lab.walk() == [("old", "unacknowledged"), ("old-js", "unacknowledged")]
    assert lab.snapshot() == before


def test_a_repair_enqueues_what_was_never_acknowledged(lab: Lab) -> None:
    lab.hset("X", priority=7)
    assert lab.walk(repair=True) == [("X", "enqueued")]
    assert lab.raw.zscore(lab.keys.ready, "X") == 7
    assert lab.claim_ids() == ["X"]


def test_a_second_hset_without_zadd_on_an_ended_job_was_never_acknowledged(lab: Lab) -> None:
    lab.end(lab.leased("X"))
    lab.hset("X", created_at=lab.now() - 700)
    assert lab.walk() == [("X", "unacknowledged")]
    assert lab.where("X") == []


def test_a_new_enqueue_of_an_old_id_is_counted_by_its_claim_alone(lab: Lab) -> None:
    lab.end(lab.leased("X"))
    lab.raw.hdel(lab.keys.job("X"), "_due_at")
    lab.put("X")
    lab.walk()
    lab.claim()
    assert lab.counters()["entered"] == 2


@pytest.mark.parametrize("fields", [{"status": "processing"}, {"type": "mail"}, {"a": "1"}])
def test_hashes_of_the_application_are_left_alone(lab: Lab, fields: dict[str, str]) -> None:
    lab.raw.hset(lab.keys.job("theirs"), mapping=fields)
    lab.raw.lpush(lab.keys.job("list"), "x")
    before = lab.snapshot()
    assert lab.walk(repair=True) == []
    assert lab.snapshot() == before


@pytest.mark.parametrize("place", ["ready", "scheduled", "active", "held"])
def test_a_waiting_job_loses_its_ttl(lab: Lab, place: str) -> None:
    lab.put("X", "film" if place == "held" else "mail")
    if place == "scheduled":
        lab.end(lab.claim_one(), "retrying")
    elif place != "ready":
        lab.claim()
    assert lab.where("X")[0].startswith(place)
    lab.raw.expire(lab.keys.job("X"), 1000)
    assert lab.walk() == [("X", "persisted")]
    assert lab.ttl("X") == -1


@pytest.mark.parametrize("end", ["completed", "dead", "cancelled"])
def test_an_ended_job_without_a_ttl_gets_one(lab: Lab, end: str) -> None:
    claimed = lab.leased("X")
    lab.cancel("X") if end == "cancelled" else lab.end(claimed, end)
    assert lab.walk() == []
    lab.raw.persist(lab.keys.job("X"))
    assert lab.walk() == [("X", "ttl")]
    assert DAY - 5 < lab.ttl("X") <= DAY


def test_a_raw_job_is_dated_when_it_is_first_seen(lab: Lab) -> None:
    lab.put("X")
    lab.walk()
    due = lab.field("X", "_due_at")
    assert due is not None
    assert abs(float(due) - lab.now()) < 5
    lab.walk()
    lab.claim()
    assert lab.field("X", "_due_at") == due
    assert lab.counters()["entered"] == 1


@pytest.mark.parametrize("place", ["held", "scheduled"])
def test_an_expired_job_goes_where_a_claim_takes_it_even_without_a_handler(lab: Lab, place: str) -> None:
    lab.put("X", "film")
    if place == "scheduled":
        lab.end(lab.claim_one(types={"film": -1}), "retrying")
    else:
        lab.claim()
    lab.set("X", _due_at=lab.due(31 * DAY))
    assert lab.walk(max_age=32 * DAY) == []
    assert lab.walk(max_age=30 * DAY) == [("X", "expired")]
    assert lab.where("X") == ["ready"]
    assert lab.claim_ids(types={}) == ["X"]
    assert lab.where("X") == ["active"]


def test_dead_letters_whose_hash_is_gone_are_swept_from_the_tail(lab: Lab) -> None:
    for name in ("A", "B", "C"):
        lab.end(lab.leased(name), "dead")
    lab.raw.delete(lab.keys.job("A"), lab.keys.job("B"))
    lab.walk()
    assert lab.dead() == ["C"]
    assert lab.raw.smembers(lab.keys.dead_ids) == {"C"}


def test_the_set_of_dead_letters_does_not_grow_when_the_list_is_emptied_by_hand(lab: Lab) -> None:
    ids = lab.keys.dead_ids
    lab.raw.sadd(ids, *range(1000))
    lab.walk()
    assert lab.raw.scard(ids) == 1000
    lab.raw.sadd(ids, "one more")
    lab.walk()
    assert lab.raw.exists(ids) == 0


def test_held_entries_whose_hash_is_gone_are_swept(lab: Lab) -> None:
    lab.put("X", "film")
    lab.claim()
    lab.raw.delete(lab.keys.job("X"))
    lab.walk()
    assert lab.raw.exists(lab.keys.held, lab.keys.held_for("type:film")) == 0


def test_a_second_walk_changes_nothing(lab: Lab) -> None:
    lab.put("ready")
    lab.put("film", "film", score=1)
    lab.claim(want=1)
    lab.put("waits")
    lab.zadd("late", 5)
    lab.hset("only-hash", created_at=1)
    lab.walk()
    before = lab.snapshot()
    lab.walk()
    assert lab.snapshot() == before


def test_a_prefix_with_glob_characters_finds_its_jobs_and_no_others(lab: Lab) -> None:
    lab.raw.hset("tX:job:theirs", mapping={"status": "queued", "type": "mail"})
    lab.keys = type(lab.keys)("t[X]*?\\^:")
    lab.hset("X")
    assert lab.walk(repair=True) == [("X", "enqueued")]


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "missing"])
def test_a_key_of_a_wrong_type_stops_a_promotion_before_it_writes(lab: Lab, name: str) -> None:
    lab.enqueue(NewJob("due", 1, {"type": "mail"}, delay=1000))
    lab.make_due("due")
    lab.zadd("nohash", 1)
    lab.claim_ids()
    lab.raw.zadd(lab.keys.missing, {"nohash": 1})
    key = getattr(lab.keys, name)
    lab.raw.delete(key)
    lab.raw.set(key, "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.promote()
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before


@pytest.mark.parametrize("name", ["ready", "active", "scheduled", "dead"])
def test_a_key_of_a_wrong_type_stops_a_walk_before_it_writes(lab: Lab, name: str) -> None:
    lab.put("X")
    lab.put("Y", _due_at="1.000000")
    lab.raw.delete(lab.keys.ready)
    lab.raw.set(getattr(lab.keys, name), "foreign")
    before = lab.snapshot()
    with pytest.raises(StoreError) as error:
        lab.walk(repair=True)
    assert error.value.fault is StoreFault.WRONGTYPE
    assert lab.snapshot() == before
