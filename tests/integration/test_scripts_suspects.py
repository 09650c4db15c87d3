"""Claiming suspects: a few at once, the others aside, and nobody behind them waits."""

from __future__ import annotations

import pytest

from jobqd.store.running import Suspects
from tests.support.lab import DAY, Lab


def room(count: int, crashes: int = 2) -> Suspects:
    return Suspects(crashes, count)


def test_no_more_suspects_than_there_is_room_for_are_claimed(lab: Lab) -> None:
    for number in range(4):
        lab.put(f"s{number}", score=number, crashes=2)
    lab.put("free", score=9, crashes=1)
    assert lab.claim_ids(suspects=room(2)) == ["s0", "s1", "free"]
    assert lab.where("s2") == lab.where("s3") == ["held:suspect"]
    job = lab.job("s2")
    assert (job["status"], job["held"]) == ("queued", "suspect")
    assert lab.raw.zscore(lab.keys.held_for("suspect"), "s2") == 2


def test_held_suspects_are_claimed_by_score_among_the_ready_once_there_is_room(lab: Lab) -> None:
    lab.put("later", score=5, crashes=2)
    lab.put("sooner", score=3, crashes=7)
    assert lab.claim_ids(suspects=room(0)) == []
    lab.put("first", score=1)
    lab.put("between", score=4)
    assert lab.claim_ids(suspects=room(0), want=1) == ["first"]
    assert lab.claim_ids(suspects=room(1)) == ["sooner", "between"]
    assert lab.claim_ids(suspects=room(0)) == []
    assert lab.claim_ids(suspects=room(1)) == ["later"]
    assert "held" not in lab.job("later")
    assert lab.raw.exists(lab.keys.held, lab.keys.held_for("suspect")) == 0


@pytest.mark.parametrize("crashes", ["1", "-2", "2.0", "abc", "1234567890123456"])
def test_too_few_or_forged_crashes_make_no_suspect(lab: Lab, crashes: str) -> None:
    lab.put("X", crashes=crashes)
    assert lab.claim_ids(suspects=room(0)) == ["X"]


def test_from_how_many_crashes_on_is_the_daemons_to_say(lab: Lab) -> None:
    lab.put("X", crashes=1)
    assert lab.claim_ids(suspects=room(0, crashes=1)) == []
    assert lab.claim_ids(suspects=room(0, crashes=2), worker="w2") == []
    assert lab.claim_ids(suspects=room(1, crashes=2), worker="w2") == ["X"]


def test_a_new_enqueue_of_an_ended_suspect_is_none(lab: Lab) -> None:
    lab.put("X", crashes=5)
    lab.end(lab.claim_one(), "dead")
    lab.put("X")
    (again,) = lab.claim(suspects=room(0)).jobs
    assert (again.id, again.crashes) == ("X", 0)


def test_an_expired_suspect_is_handed_out_to_be_dead_lettered(lab: Lab) -> None:
    lab.put("X", crashes=5, _due_at=lab.due(2 * DAY))
    assert lab.claim_ids(suspects=room(0), max_age=DAY) == ["X"]


def test_a_suspect_counts_against_the_cap_of_its_type_too(lab: Lab) -> None:
    for number in range(3):
        lab.put(f"s{number}", score=number, crashes=2)
    assert lab.claim_ids(suspects=room(2), types={"mail": 1}) == ["s0"]
    assert lab.where("s1") == ["held:type:mail"]
    # Room of its type alone is not enough: it goes from the one row to the other, and comes out when there is both.
    assert lab.claim_ids(suspects=room(0), types={"mail": 1}) == []
    assert lab.where("s1") == ["held:suspect"]
    assert lab.claim_ids(suspects=room(2), types={"mail": 0}) == []
    assert lab.where("s1") == ["held:type:mail"]
    assert lab.claim_ids(suspects=room(2), types={"mail": -1}) == ["s1", "s2"]


def test_a_suspect_of_a_type_without_a_handler_here_waits_for_that_type(lab: Lab) -> None:
    lab.put("X", "film", crashes=2)
    assert lab.claim_ids(suspects=room(2)) == []
    assert lab.where("X") == ["held:type:film"]


def test_a_cancelled_suspect_leaves_its_row(lab: Lab) -> None:
    lab.put("X", crashes=2)
    lab.claim(suspects=room(0))
    assert lab.cancel("X") == ["removed"]
    assert lab.where("X") == []
    assert lab.raw.exists(lab.keys.held) == 0


def test_a_claim_without_a_word_on_suspects_takes_them_like_others(lab: Lab) -> None:
    lab.put("X", crashes=9)
    assert lab.claim_ids() == ["X"]


def test_a_death_and_a_lapse_are_counted_apart(lab: Lab) -> None:
    assert lab.end(lab.leased("X"), "retrying", charge="crashes") == "ok"
    assert (lab.counters()["crashed"], lab.counters()["lapsed"]) == (1, 0)
    assert lab.field("X", "crashes") == "1"
