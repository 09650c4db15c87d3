"""Runs that were told to end and do not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jobqd import reminder
from jobqd.reminder import Reminder, stack_of
from jobqd.runs import Ending, Run
from tests.support.log import RecordingLog
from tests.support.parts import claimed, run_of
from tests.support.waiting import soon


def stuck_in_a_thread() -> Run:
    run = run_of(claimed(type="film"))
    run.performing, run.ending, run.task = True, Ending.TIMEOUT, asyncio.current_task()
    run.thread, run.thread_id = threading.Event(), threading.get_ident()
    return run


@pytest.fixture
def soon_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminder, "REMIND_EVERY", 0.02)


class Counting(Reminder):
    """Counts its looks."""

    looks = 0

    def remind(self, run: Run) -> None:
        self.looks += 1
        super().remind(run)


async def test_however_often_a_run_is_told_one_look_is_under_way(soon_enough: None) -> None:
    made = Counting(RecordingLog())  # type: ignore[arg-type]
    run = stuck_in_a_thread()
    for _ in range(50):
        made.watch(run)
    await soon(lambda: made.overdue(run))
    assert made.looks < 5
    made.forget(run)
    assert not made._looks
    assert not made.overdue(run)


async def test_a_thread_is_named_once_with_what_it_does(soon_enough: None) -> None:
    log = RecordingLog()
    made = Counting(log)  # type: ignore[arg-type]
    run = stuck_in_a_thread()
    made.watch(run)
    await soon(lambda: made.looks >= 3)
    (told,) = log.of("job.keeps_thread")
    assert "in stack_of" in told["stack"], "it is this thread's"
    assert (told["job_type"], told["ending"]) == ("film", "timeout")
    run.performing = False
    await soon(lambda: not made._looks)


def test_a_thread_that_is_gone_has_no_stack() -> None:
    assert stack_of(-1) == ""
