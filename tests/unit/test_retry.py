"""What an outcome leads to: pure, so every rule is a call."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.retry import DELAY_MAX, MAX_LAPSES, backoff, decide, expired
from jobqd.runs import Completed, Crashed, Failed, Interrupted, Lapsed, Snoozed
from tests.support.parts import NOW, claimed, policy


def half() -> float:
    return 0.5


@given(failures=st.integers(1, 10_000), delay=st.floats(0, 1e6), most=st.floats(0, 1e7), draw=st.floats(0, 0.999999))
def test_backoff_is_within_its_bounds(failures: int, delay: float, most: float, draw: float) -> None:
    seconds = backoff(failures, policy(retry_delay=delay, retry_max_delay=most), lambda: draw)
    ceiling = min(most, delay * 2.0 ** min(failures - 1, 60))
    assert ceiling / 2 <= seconds <= ceiling


@pytest.mark.parametrize(("failures", "low", "high"), [(1, 5, 10), (2, 10, 20), (3, 20, 40), (20, 450, 900)])
def test_backoff_doubles_up_to_the_maximum_and_half_of_it_is_random(failures: int, low: float, high: float) -> None:
    limits = policy()
    assert backoff(failures, limits, lambda: 0.0) == low
    assert backoff(failures, limits, lambda: 0.999999) == pytest.approx(high, rel=1e-5)
    generator = random.Random(1)
    draws = [backoff(failures, limits, generator.random) for _ in range(200)]
    assert min(draws) < low + (high - low) * 0.1
    assert max(draws) > high - (high - low) * 0.1


def test_a_completion_is_charged_and_kept_for_the_types_ttl() -> None:
    order = decide(claimed(fence=4), "w", Completed("[1]"), policy(job_ttl=7.0), half)
    assert (order.job_id, order.worker, order.fence, order.guard) == ("job", "w", 4, "run")
    assert (order.to, order.charge, order.ttl, order.result) == ("completed", "attempts", 7.0, "[1]")


@pytest.mark.parametrize("outcome", [Snoozed(1e300), Failed("later", "Retry", delay=1e300)])
def test_a_pause_is_a_hundred_years_at_most(outcome: Snoozed | Failed) -> None:
    assert decide(claimed(), "w", outcome, policy(), half).delay == DELAY_MAX


def test_whatever_a_failure_tells_it_is_kept_short() -> None:
    order = decide(claimed(), "w", Failed("x" * 10**6, "T" * 10**6), policy(), half)
    assert (len(order.error), len(order.error_type)) == (4000, 200)
    assert len(order.history) < 1000
    assert len(decide(claimed(), "w", Failed("", "T" * 10**6), policy(), half).error) == 200


def test_a_failure_is_tried_again_with_backoff() -> None:
    order = decide(claimed(attempts=1), "w", Failed("no", "OSError", "Traceback"), policy(), half)
    assert (order.to, order.charge, order.delay) == ("retrying", "attempts", 15.0)
    assert (order.error, order.error_type, order.traceback) == ("no", "OSError", "Traceback")
    assert json.loads(order.history) == {"attempt": 2, "fence": 1, "error_type": "OSError", "error": "no"}


def test_a_failure_may_name_its_delay() -> None:
    assert decide(claimed(), "w", Failed("no", "Retry", delay=0.0), policy(), half).delay == 0.0


@pytest.mark.parametrize(("attempts", "to"), [(1, "retrying"), (2, "dead")])
def test_the_last_attempt_ends_in_the_dead_letters(attempts: int, to: str) -> None:
    order = decide(claimed(attempts=attempts), "w", Failed("no", "OSError"), policy(max_attempts=3), half)
    assert (order.to, order.charge) == (to, "attempts")
    assert order.ttl == 86400.0


def test_a_final_failure_is_dead_at_once() -> None:
    order = decide(claimed(), "w", Failed("no", "Fail", final=True), policy(), half)
    assert (order.to, order.charge, order.delay) == ("dead", "attempts", 0.0)


def test_attempts_never_pass_the_maximum() -> None:
    order = decide(claimed(attempts=99), "w", Failed("no", "OSError"), policy(max_attempts=3), half)
    assert (order.to, order.charge) == ("dead", "")


@pytest.mark.parametrize("text", ["1234567890123456", "-1", "1.5", "many", ""])
def test_a_forged_counter_counts_as_nothing(text: str) -> None:
    assert decide(claimed(attempts=text), "w", Failed("no", "E"), policy(), half).to == "retrying"


@pytest.mark.parametrize(("asked", "given"), [(0.0, 1.0), (300.0, 300.0)])
def test_a_snooze_is_not_charged_and_lasts_a_second_at_least(asked: float, given: float) -> None:
    order = decide(claimed(), "w", Snoozed(asked), policy(), half)
    assert (order.to, order.charge, order.delay) == ("scheduled", "", given)


@pytest.mark.parametrize(("begun", "charge"), [(True, "interruptions"), (False, "")])
def test_what_we_ended_is_handed_back_and_no_attempt_is_charged(begun: bool, charge: str) -> None:
    order = decide(claimed(), "w", Interrupted("stop", begun), policy(), half)
    assert (order.to, order.charge, order.delay, order.error) == ("ready", charge, 0.0, "")


@pytest.mark.parametrize(("crashes", "to", "delay"), [(0, "ready", 0.0), (1, "retrying", 7.5), (2, "retrying", 15.0)])
def test_a_lapsed_lease_is_no_attempt_and_waits_from_the_second_on(crashes: int, to: str, delay: float) -> None:
    order = decide(claimed(crashes=crashes), "w", Lapsed("its lease ran out"), policy(), half, "lapse")
    assert (order.to, order.charge, order.delay, order.guard) == (to, "crashes", delay, "lapse")
    assert json.loads(order.history)["error"] == "its lease ran out"


def test_lapses_alone_end_after_ten() -> None:
    order = decide(claimed(crashes=MAX_LAPSES - 1), "w", Lapsed("its lease ran out"), policy(), half, "dead")
    assert (order.to, order.charge, order.guard) == ("dead", "crashes", "dead")
    assert order.error == "its lease ran out 10 times, last because its lease ran out"


@pytest.mark.parametrize(("crashes", "delay"), [(0, 7.5), (1, 15.0)])
def test_the_death_of_its_own_process_is_no_attempt_and_is_tried_again_with_backoff(crashes: int, delay: float) -> None:
    order = decide(claimed(crashes=crashes, attempts=1), "w", Crashed("it died", "in f"), policy(), half)
    assert (order.to, order.charge, order.delay, order.guard) == ("retrying", "crashes", delay, "run")
    assert (order.error, order.error_type, order.traceback) == ("it died", "Crashed", "in f")
    assert json.loads(order.history) == {"attempt": 2, "fence": 1, "error_type": "Crashed", "error": "it died"}


@pytest.mark.parametrize(
    ("max_crashes", "crashes", "to"), [(3, 1, "retrying"), (3, 2, "dead"), (2, 1, "dead"), (3, 9, "dead")]
)
def test_the_death_of_its_own_process_convicts_a_suspect(max_crashes: int, crashes: int, to: str) -> None:
    order = decide(claimed(crashes=crashes), "w", Crashed("it died"), policy(max_crashes=max_crashes), half)
    assert (order.to, order.charge) == (to, "crashes")
    if to == "dead":
        assert (order.delay, order.ttl) == (0.0, 86400.0)


def test_lapses_alone_never_convict_a_suspect_before_the_tenth() -> None:
    order = decide(claimed(crashes=8), "w", Lapsed("its daemon died"), policy(max_crashes=2), half, "dead")
    assert order.to == "retrying"


def test_what_is_kept_of_an_error_is_bounded_and_never_empty() -> None:
    order = decide(claimed(), "w", Failed("x" * 10_000, "E"), policy(), half)
    assert len(order.error) == 4000
    assert order.error.endswith("…")
    assert len(order.history) < 500
    assert decide(claimed(), "w", Failed("", "E"), policy(), half).error == "E"
    assert decide(claimed(), "w", Failed("", ""), policy(), half).error == "failed"


@pytest.mark.parametrize(
    ("due", "is_expired"), [(NOW - 61, True), (NOW - 59, False), ("", False), ("soon", False), ("nan", False)]
)
def test_a_job_expires_max_age_after_it_was_due(due: object, is_expired: bool) -> None:
    assert expired(claimed(_due_at=due), policy(max_age=60.0)) is is_expired
    assert expired(claimed(), policy(max_age=60.0)) is False
