"""What an exception leads to, where its own code does its worst."""

from __future__ import annotations

from typing import Any

import pytest

from jobqd.errors import Fail, Retry, Snooze
from jobqd.runs import Failed, Outcome, Snoozed
from jobqd.verdict import outcome_of_error
from tests.unit.test_texts import Evil


class Elusive(Exception):
    @property
    def __class__(self) -> Any:
        raise Evil


class Code:
    def __repr__(self) -> str:
        raise Evil


def judged(error: BaseException) -> tuple[str, str]:
    outcome = outcome_of_error(error)
    assert type(outcome) is Failed
    return outcome.error, outcome.error_type


def test_an_exception_that_cannot_be_read_is_a_failure() -> None:
    assert judged(Evil()) == ("(its message could not be made)", "Evil")
    assert judged(SystemExit(Code())) == (
        "the handler called sys.exit(<Code whose repr raises Evil>)",
        "SystemExit",
    )
    assert judged(Elusive()) == ("Elusive, which could not be read: Evil", "Elusive")


class Busy(Retry):
    def __init__(self, words: str = "") -> None:
        Exception.__init__(self, words)


class Later(Snooze):
    def __init__(self) -> None:
        pass


class Hourly(Snooze):
    delay = "1h"

    def __init__(self) -> None:
        pass


class Patient(Retry):
    delay = "30s"


def with_delay(error: Retry | Snooze, delay: Any) -> BaseException:
    error.delay = delay
    return error


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (lambda: Retry("why"), Failed("why", "Retry")),
        (lambda: Retry("why", delay="5m"), Failed("why", "Retry", delay=300.0)),
        (lambda: Retry("why", delay=0), Failed("why", "Retry", delay=0.0)),
        (Busy, Failed("Busy", "Retry")),
        (lambda: Busy("the API"), Failed("the API", "Retry")),
        (lambda: Patient("why"), Failed("why", "Retry", delay=30.0)),
        (lambda: Patient("why", delay=5), Failed("why", "Retry", delay=5.0)),
        (lambda: with_delay(Retry("why"), "5m"), Failed("why", "Retry", delay=300.0)),
        (lambda: Snooze("5m"), Snoozed(300.0)),
        (Later, Snoozed(60.0)),
        (Hourly, Snoozed(3600.0)),
        (lambda: with_delay(Snooze(1), "5m"), Snoozed(300.0)),
    ],
)
def test_a_verb_and_its_subclasses_have_a_delay(make: Any, outcome: Outcome) -> None:
    assert outcome_of_error(make()) == outcome


@pytest.mark.parametrize("verb", [Retry("why"), Snooze(1, "why")])
@pytest.mark.parametrize("delay", [-1, float("nan"), "soon", object(), Code()])
def test_a_delay_that_is_none_is_a_failure_that_says_so(verb: Retry | Snooze, delay: Any) -> None:
    outcome = outcome_of_error(with_delay(verb, delay))
    assert type(outcome) is Failed
    assert outcome.error.startswith("why (its delay: ")
    assert "is not a duration" in outcome.error
    assert (outcome.error_type, outcome.delay) == (type(verb).__name__, None)


def test_a_verb_tells_its_reason_also_where_a_subclass_gives_none() -> None:
    assert (Busy().reason, Later().reason, Retry("why").reason) == ("retry requested", "snoozed", "why")


def test_however_long_its_parts_an_exception_tells_little() -> None:
    long = type("X" * 10**6, (Exception,), {})
    for error in (long("why"), long(), SystemExit("x" * 10**6), ValueError("x" * 10**6), Fail("x" * 10**6)):
        outcome = outcome_of_error(error)
        assert type(outcome) is Failed
        assert len(outcome.error) <= 4000
        assert len(outcome.error_type) <= 200
        assert len(outcome.traceback) < 10_000
    assert outcome_of_error(SystemExit("x" * 2000)) == Failed(
        f"the handler called sys.exit('{'x' * 998}…)", "SystemExit", "SystemExit: " + "x" * 2000 + "\n"
    )
