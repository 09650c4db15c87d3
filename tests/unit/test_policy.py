"""Limits of a job: its hash over settings over decorator over the global setting."""

from __future__ import annotations

import pytest

from jobqd.handlers import Handlers
from jobqd.policy import Policies
from jobqd.runs import Policy
from jobqd.settings import Settings
from tests.support.log import RecordingLog
from tests.support.parts import claimed


@pytest.fixture
def handlers() -> Handlers:
    handlers = Handlers()

    @handlers.job("plain")
    async def plain() -> None: ...

    @handlers.job(
        "decorated", timeout="2h", max_attempts=5, concurrency=2, stall_timeout="1m", job_ttl="1h", drain_timeout=0
    )
    async def decorated() -> None: ...

    return handlers


def of(settings: Settings, handlers: Handlers, job_type: str, **fields: object) -> Policy:
    return Policies(settings, handlers).of(claimed(type=job_type, **fields))


def test_global_settings_hold_where_nothing_else_is_said(handlers: Handlers) -> None:
    found = of(Settings(max_attempts=7, timeout="5m", dead_ttl="1d", max_age="2d"), handlers, "plain")
    assert (found.max_attempts, found.timeout, found.dead_ttl, found.max_age) == (7, 300.0, 86400.0, 172800.0)
    assert (found.retry_delay, found.retry_max_delay, found.stall_timeout) == (10.0, 900.0, None)


def test_the_decorator_wins_over_global_settings(handlers: Handlers) -> None:
    found = of(Settings(timeout="5m", drain_timeout="1m"), handlers, "decorated")
    assert (found.timeout, found.max_attempts, found.stall_timeout, found.job_ttl) == (7200.0, 5, 60.0, 3600.0)
    assert found.drain_timeout == 0.0


def test_settings_of_the_type_win_over_the_decorator(handlers: Handlers) -> None:
    settings = Settings(jobs={"decorated": {"timeout": "10m", "concurrency": 4}})
    assert of(settings, handlers, "decorated").timeout == 600.0
    assert of(settings, handlers, "decorated").max_attempts == 5
    assert Policies(settings, handlers).cap("decorated") == 4


def test_the_hash_wins_over_all(handlers: Handlers) -> None:
    settings = Settings(jobs={"decorated": {"timeout": "10m"}})
    found = of(settings, handlers, "decorated", timeout="90s", max_attempts="2")
    assert (found.timeout, found.max_attempts) == (90.0, 2)


@pytest.mark.parametrize(
    "fields",
    [{"timeout": "soon"}, {"timeout": "0"}, {"timeout": "-1"}, {"timeout": "inf"}, {"max_attempts": "0"},
     {"max_attempts": "-3"}, {"max_attempts": "12345678901234567"}, {"max_attempts": "1.5"}],
)  # fmt: skip
def test_a_field_that_makes_no_sense_is_ignored(handlers: Handlers, fields: dict[str, str]) -> None:
    found = of(Settings(), handlers, "decorated", **fields)
    assert (found.timeout, found.max_attempts) == (7200.0, 5)


def test_one_jobs_fields_do_not_reach_the_next(handlers: Handlers) -> None:
    policies = Policies(Settings(), handlers)
    policies.of(claimed(type="plain", timeout="1s"))
    assert policies.of(claimed(type="plain")).timeout == 3600.0


def test_a_first_delay_above_the_maximum_is_meant(handlers: Handlers) -> None:
    found = of(Settings(jobs={"plain": {"retry_delay": "1h"}}), handlers, "plain")
    assert (found.retry_delay, found.retry_max_delay) == (3600.0, 3600.0)


def test_caps_come_from_types_alone(handlers: Handlers) -> None:
    policies = Policies(Settings(concurrency=8), handlers)
    assert policies.cap("decorated") == 2
    assert policies.cap("plain") is None
    assert policies.cap("unknown") is None


def test_types_without_a_handler_are_not_kept(handlers: Handlers) -> None:
    policies = Policies(Settings(), handlers)
    assert policies.of_type("foreign") == policies.of_type("plain")
    assert policies.of_type("foreign") is not policies.of_type("foreign")
    assert policies.of_type("plain") is policies.of_type("plain")


def test_a_field_that_makes_no_sense_is_told_once_for_each_type(handlers: Handlers) -> None:
    log = RecordingLog()
    policies = Policies(Settings(), handlers, log)
    for job_type in ("plain", "decorated", "plain", "unknown"):
        policies.of(claimed(type=job_type, timeout="soon", max_attempts=""))
    policies.of(claimed(type="plain", timeout="1m", max_attempts="many"))
    told = [(fields["job_type"], fields["field"], fields["value"]) for fields in log.of("job.option_ignored")]
    assert told == [("plain", "timeout", "soon"), ("decorated", "timeout", "soon"), ("plain", "max_attempts", "many")]
