"""Jobs that no handler could take, as a claim hands them out: too large, of an impossible type, without an id."""

from __future__ import annotations

import pytest

from jobqd.job import Claimed
from jobqd.keys import Seat
from jobqd.store import running
from tests.support.lab import DAY, Lab

LIMIT = 1000


def claim(lab: Lab, want: int = 1, worker: str = "w1") -> list[Claimed]:
    """Claim with a small max_payload."""
    lab.numbers[worker] += 1
    seat = Seat(lab.keys, worker, 15.0)
    sizes = running.Sizes(LIMIT, 2 * LIMIT)
    return lab.run(running.claim(seat, lab.numbers[worker], want, DAY, {"mail": -1}, sizes=sizes)).jobs


def test_of_a_job_that_is_too_large_only_small_fields_of_the_daemon_come_along(lab: Lab) -> None:
    lab.put("X", payload="x" * 2 * LIMIT, own="1", attempts=3, traceback="x" * 2 * LIMIT, _history="x" * 2 * LIMIT)
    (job,) = claim(lab)
    assert job.unfit
    assert set(job.fields) & {"payload", "own", "traceback", "_history", "attempts"} == {"attempts"}
    # The payload, the field `own` and its name.
    assert "1.96KiB" in job.unfit


def test_only_arguments_count_as_payload(lab: Lab) -> None:
    lab.put("X", payload="x" * (LIMIT - 1), result="x" * 2 * LIMIT, checkpoint="x" * 2 * LIMIT)
    (job,) = claim(lab)
    assert not job.unfit
    assert len(job.fields["payload"]) == LIMIT - 1
    assert len(job.fields["checkpoint"]) == 2 * LIMIT


def test_what_only_the_daemon_writes_about_a_run_stays_behind(lab: Lab) -> None:
    told = {"attempts": "1", "crashes": "1", "interruptions": "1", "timeout": "9", "max_attempts": "3", "priority": "9",
            "created_at": "1", "checkpoint": "1", "payload": "{}", "own": "", "": "no name"}  # fmt: skip
    left = dict.fromkeys(
        ("started_at", "progress", "step", "eta_seconds", "result", "error", "error_type", "traceback", "fence", "held",
         "worker", "_ended", "_saved", "_history", "_", "_x"), "1",
    )  # fmt: skip
    lab.put("X", **left, **told)
    assert claim(lab)[0].fields == {"status": "queued", "type": "mail", **told}


def test_what_stays_behind_and_is_none_of_ours_goes(lab: Lab) -> None:
    names = ["_x", "_history", "result", "traceback", "held", "worker", "fence", "started_at"]
    lab.put("X", score=1, own="x" * 500, **dict.fromkeys(names, "1" * 65537))
    kept = {name: "1" * (65536 - len(name)) for name in ("_x", "_history", "result", "traceback")}
    lab.put("Y", score=2, **kept)
    (job, _) = claim(lab, 2)
    left = lab.job("X")
    assert not {"_x", "_history", "result", "traceback", "held"} & left.keys()
    assert (left["worker"], left["fence"], left["own"]) == ("w1", "1", "x" * 500)
    assert abs(float(left["started_at"]) - lab.now()) < 5
    assert kept.items() <= lab.job("Y").items()
    assert lab.end(job) == "ok"


SHORT = ["status", "created_at", "priority", "attempts", "max_attempts", "crashes", "interruptions", "timeout"]


@pytest.mark.parametrize("name", SHORT)
def test_a_field_of_the_daemon_has_a_limit(lab: Lab, name: str) -> None:
    lab.put("X", score=1, **{name: "1" * 4096})
    lab.put("Y", score=2, **{name: "1" * 4097})
    just, more = claim(lab, 2)
    assert (just.unfit, len(just.fields[name])) == ("", 4096)
    assert more.unfit == f"its field {name} is 4097 bytes, more than the 4096 that it may be"
    assert name not in more.fields


def test_a_checkpoint_has_the_limit_of_a_result(lab: Lab) -> None:
    lab.put("X", checkpoint="x" * (2 * LIMIT + 1), attempts=2)
    (job,) = claim(lab)
    assert job.unfit.startswith("its checkpoint is 2001 bytes, more than max_result (2000): ")
    assert ("checkpoint" in job.fields, job.attempts) == (False, 2)


def test_what_an_older_job_of_the_id_left_behind_convicts_nobody(lab: Lab) -> None:
    large = "1" * 2**20
    lab.put("X", finished_at="1", checkpoint=large, attempts=large, crashes=large, interruptions=large)
    (job,) = claim(lab)
    assert (job.unfit, job.fields) == ("", {"status": "queued", "type": "mail"})


def test_of_a_type_that_is_too_long_the_start_is_sent(lab: Lab) -> None:
    lab.put("X", "x" * 10**6)
    (job,) = claim(lab)
    assert (job.type, "cannot be one" in job.unfit) == ("x" * 513, True)


def test_a_claim_reads_about_sixty_four_mebibytes_at_once(lab: Lab) -> None:
    for number in range(5):
        lab.put(str(number), result="x" * 30 * 2**20)
    lab.numbers["w1"] += 1
    first = lab.claim(want=9)
    assert ([job.id for job in first.jobs], first.more) == (["0", "1", "2"], True)
    assert lab.claim_ids(want=9) == ["3", "4"]


def test_a_claim_sent_again_ends_where_hashes_have_grown_beyond_a_reply(lab: Lab) -> None:
    for number in range(3):
        lab.put(str(number), score=number)
    call = lab.claim_call(want=3)
    assert len(lab.run(call).jobs) == 3
    for number in range(3):
        lab.set(str(number), payload="x" * 5 * 2**20)
    assert [job.id for job in lab.run(call).jobs] == ["0", "1"]


def test_names_of_own_fields_count_too(lab: Lab) -> None:
    lab.put("X", **{"x" * LIMIT: "1"})
    assert claim(lab)[0].unfit


def test_large_jobs_take_little_room_in_a_reply(lab: Lab) -> None:
    for number in range(20):
        lab.put(f"{number:02}", payload="x" * 10**6)
    assert len(claim(lab, 20)) == 20


@pytest.mark.parametrize("job_type", ["two words", "tab\there", "x" * 513])
def test_a_type_that_no_handler_can_have_is_handed_out(lab: Lab, job_type: str) -> None:
    lab.put("X", job_type)
    assert [job.id for job in claim(lab)] == ["X"]


def test_the_longest_type_waits_for_its_handler(lab: Lab) -> None:
    lab.put("X", "x" * 512)
    assert claim(lab) == []
    assert lab.where("X") == [f"held:type:{'x' * 512}"]


def test_the_empty_id_is_dropped_and_told(lab: Lab) -> None:
    lab.put("")
    lab.put("X")
    claims = lab.claim(want=5)
    assert [job.id for job in claims.jobs] == ["X"]
    assert claims.dropped == [("", "empty id")]
    assert lab.where("") == []


def test_an_id_that_is_too_long_is_dropped_and_told_in_short(lab: Lab) -> None:
    lab.put("x" * 2**17, score=1)
    lab.put("y" * (2**17 + 1), score=2)
    lab.put("X", score=3)
    claims = lab.claim()
    assert [len(job.id) for job in claims.jobs] == [2**17, 1]
    assert claims.dropped == [("y" * 1000, "id of 131073 bytes")]
    assert lab.raw.zcard(lab.keys.ready) == 0


def test_long_ids_take_room_in_a_reply(lab: Lab) -> None:
    for number in range(70):
        lab.put(f"{number:02}" + "x" * 130_000)
    claims = lab.claim(want=100)
    assert (len(claims.jobs), claims.more) == (65, True)


def test_whatever_is_told_of_a_long_id_is_short(lab: Lab) -> None:
    late, never, written = (letter * 70_000 for letter in "abc")
    lab.hset(never)
    lab.hset(written)
    lab.raw.zadd(lab.keys.scheduled, {late: 1, never: 1e300})
    promotion = lab.promote()
    assert (promotion.dropped, promotion.corrected) == ([("a" * 1000, "no hash")], [("b" * 1000, "never")])
    assert lab.raw.zrange(lab.keys.scheduled, 0, -1) == [never]
    assert lab.walk(repair=True) == [("c" * 1000, "enqueued")]
    assert lab.where(written) == ["ready"]
