"""A job as it was claimed, and what its handler sees of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobqd.errors import PayloadError
from jobqd.job import Claimed, Job, SyncJob, created_at, integer
from jobqd.programs import Program, ProgramOptions
from tests.support.parts import NOW, claimed


class Port:
    """What a run may ask of the daemon, kept for the test to look at."""

    log = "a logger"
    max_attempts = 5
    state = "a database"
    ended = None

    def __init__(self) -> None:
        self.progresses: list[tuple[float, str | None, float | None]] = []
        self.saved: list[str] = []

    def progress(self, percent: float, step: str | None, eta_seconds: float | None) -> bool:
        self.progresses.append((percent, step, eta_seconds))
        return False

    async def save_checkpoint(self, text: str) -> None:
        self.saved.append(text)

    def program(self, argv: tuple[str, ...], options: ProgramOptions) -> Program:
        raise AssertionError(argv)


def job_of(made: Claimed, port: Port | None = None) -> Job:
    return Job(made, port or Port(), None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("007", 7), ("999999999999999", 999999999999999), ("1000000000000000", 0), ("-1", 0), ("1.0", 0),
     (" 1", 0), ("١", 0), ("", 0), ("1\n", 0), (None, 0)],
)  # fmt: skip
def test_an_integer_is_1_to_15_digits_or_nothing(text: str | None, value: int) -> None:
    assert integer(text) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1763900000.12", 1763900000.12), ("1763900000123", 1763900000.123), ("soon", 0.0), ("nan", 0.0), ("inf", 0.0)],
)
def test_created_at_may_be_javascript_milliseconds(text: str, seconds: float) -> None:
    assert created_at({"created_at": text}) == seconds
    assert created_at({}) == 0.0


def test_counters_of_a_job_are_read_with_care() -> None:
    made = claimed(attempts="2", crashes="x", interruptions="1")
    assert (made.attempts, made.crashes, made.interruptions) == (2, 0, 1)
    assert made.type == ""


def test_the_fraction_of_our_scores_tells_how_long_a_job_waited() -> None:
    ready = 10 + (NOW - 5.0) / 1e10
    assert claimed(score=ready).waited() == pytest.approx(5.0, abs=0.001)
    assert claimed(score=-3 + (NOW - 5.0) / 1e10).waited() == pytest.approx(5.0, abs=0.001)


def test_where_the_score_says_nothing_created_at_stands_in_for_the_first_run() -> None:
    assert claimed(score=10, created_at=NOW - 3.5).waited() == 3.5
    assert claimed(score=10, created_at=NOW - 3.5, attempts=1).waited() is None
    assert claimed(score=10).waited() is None
    assert claimed(score=10, created_at=NOW + 10).waited() == 0.0


def test_a_creation_in_whole_seconds_tells_only_roughly_how_long_a_job_waited() -> None:
    made = claimed(score=10, created_at=f"{NOW:.0f}")
    assert made.waited() is None
    assert made.waited(roughly=True) == 0.0
    assert claimed(score=10, created_at=f"{NOW * 1000:.0f}").waited() == 0.0  # milliseconds
    assert claimed(score=10 + (NOW - 5.0) / 1e10, created_at=f"{NOW:.0f}").waited() == pytest.approx(5.0, abs=0.001)


def test_a_handler_sees_the_facts_of_its_run() -> None:
    job = job_of(claimed("id", 7, type="film", attempts=2, source="in.mp4"))
    assert (job.id, job.type, job.attempt, job.max_attempts, job.fence) == ("id", "film", 3, 5, 7)
    assert job.fields["source"] == "in.mp4"
    assert (job.log, job.state) == ("a logger", "a database")
    with pytest.raises(TypeError):
        job.fields["source"] = "other"  # type: ignore[index]


@pytest.mark.parametrize(("text", "value"), [('{"at": 42}', {"at": 42}), ("broken", None), ("[" * 100_000, None)])
def test_a_checkpoint_is_what_the_last_run_saved(text: str, value: object) -> None:
    assert job_of(claimed(checkpoint=text)).checkpoint == value


async def test_a_checkpoint_is_saved_as_json_and_seen_at_once() -> None:
    port = Port()
    job = job_of(claimed(), port)
    assert job.checkpoint is None
    await job.save_checkpoint({"scène": [1, None]})
    assert port.saved == ['{"scène":[1,null]}']
    assert job.checkpoint == {"scène": [1, None]}


@pytest.mark.parametrize("data", [object(), float("nan"), {1, 2}])
async def test_a_checkpoint_that_is_not_json_is_refused(data: object) -> None:
    port = Port()
    with pytest.raises(PayloadError, match="the checkpoint is not JSON"):
        await job_of(claimed(), port).save_checkpoint(data)
    assert port.saved == []


class CountingLoop:
    """Keeps what a thread asks the loop to call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def call_soon_threadsafe(self, call: Any, *arguments: Any) -> None:
        self.calls.append((call, arguments))

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call, arguments in calls:
            call(*arguments)


def test_a_thread_that_reports_faster_than_the_loop_listens_asks_it_once_for_the_last() -> None:
    port, loop = Port(), CountingLoop()
    job = SyncJob(claimed(), port, threading.Event(), loop)  # type: ignore[arg-type]
    for percent in range(1000):
        job.progress(percent / 10, "encoding")
    assert len(loop.calls) == 1
    loop.turn()
    assert port.progresses == [(99.9, "encoding", None)]
    job.progress(100, eta_seconds=0)
    loop.turn()
    assert port.progresses[1:] == [(100.0, None, 0.0)]


async def test_the_last_report_of_a_thread_comes_before_its_end() -> None:
    port = Port()
    job = SyncJob(claimed(), port, threading.Event(), asyncio.get_running_loop())

    def report() -> None:
        for percent in range(101):
            job.progress(percent)

    await asyncio.to_thread(report)
    assert port.progresses[-1] == (100.0, None, None)
