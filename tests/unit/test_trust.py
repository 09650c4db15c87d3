"""Whether a daemon may judge the leases of others: lease 15 s, a beat each 5 s."""

from __future__ import annotations

import pytest

from jobqd.duties.trust import Trust


def beaten(*beats: float, offset: float = 1000.0, server: str = "one") -> Trust:
    trust = Trust(15.0)
    for moment in beats:
        trust.beat(moment, moment + offset, server)
    return trust


def test_it_is_earned_by_a_full_lease_of_beats() -> None:
    assert not Trust(15.0).earned(0)
    assert not beaten(0).earned(0)
    assert not beaten(0, 5, 10).earned(10)
    assert not beaten(0, 5, 10, 14.9).earned(14.9)
    assert beaten(0, 5, 10, 15).earned(15)


def test_it_fades_when_beats_stay_out() -> None:
    assert beaten(0, 5, 10, 15).earned(30)
    assert not beaten(0, 5, 10, 15).earned(30.1)


def test_a_failed_beat_ends_it() -> None:
    trust = beaten(0, 5, 10, 15)
    trust.lost()
    assert not trust.earned(15)
    trust.beat(20, 1020, "one")
    assert not trust.earned(34)
    trust.beat(30, 1030, "one")
    trust.beat(35, 1035, "one")
    assert trust.earned(35)


def test_a_beat_later_than_a_lease_begins_anew() -> None:
    trust = beaten(0, 5, 10, 15)
    trust.beat(31, 1031, "one")
    assert not trust.earned(31)
    trust.beat(46, 1046, "one")
    assert trust.earned(46)


def test_another_server_begins_anew() -> None:
    trust = beaten(0, 5, 10, 15)
    trust.beat(20, 1020, "two")
    assert not trust.earned(20)
    trust.beat(35, 1035, "two")
    assert trust.earned(35)


def test_a_step_of_the_servers_clock_begins_anew() -> None:
    for step in (-1.5, 1.5):
        trust = beaten(0, 5, 10, 15)
        trust.beat(20, 1020 + step, "one")
        assert not trust.earned(20)
        trust.beat(35, 1035 + step, "one")
        assert trust.earned(35)


def test_a_clock_that_drifts_within_a_second_is_in_step() -> None:
    trust = beaten(0, 5, 10, 15)
    trust.beat(20, 1020.9, "one")
    assert trust.earned(20)


ON_TIME = {"asked": 16.0, "answered": 16.1, "redis_now": 1016.05, "server": "one"}


def confirmed(**changes: float | str) -> bool:
    return beaten(0, 5, 10, 15).doubt(**{**ON_TIME, **changes}) is None  # type: ignore[arg-type]


def test_an_answer_of_the_redis_that_was_renewed_at_is_confirmed() -> None:
    assert confirmed()
    assert confirmed(redis_now=1017.0)
    assert confirmed(redis_now=1015.2)
    assert confirmed(asked=15.5, answered=16.4)


@pytest.mark.parametrize(
    "change",
    [{"server": "two"}, {"redis_now": 1017.2}, {"redis_now": 1014.9}, {"redis_now": 1076.0}, {"asked": 15.0}],
    ids=["another server", "its clock stepped on", "its clock stepped back", "by a minute", "too slow to tell"],
)
def test_an_answer_that_may_be_of_another_time_or_server_is_not(change: dict[str, float | str]) -> None:
    assert not confirmed(**change)


def test_nothing_is_confirmed_before_the_first_beat() -> None:
    assert Trust(15.0).doubt(**ON_TIME)  # type: ignore[arg-type]
