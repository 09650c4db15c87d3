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
    return lab.run(running.claim(seat, lab.numbers[worker], want, DAY, {"mail": -1}, max_payload=LIMIT)).jobs


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
