"""What an exception leads to, where its own code does its worst."""

from __future__ import annotations

from typing import Any

from jobqd.runs import Failed
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
