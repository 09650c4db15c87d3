from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqd.duties import hooks as module
from jobqd.duties.hooks import AT_ONCE, WAITING_BYTES, WAITING_MAX, DeadHooks
from jobqd.handlers import DeadLetter, Handlers
from tests.support.log import RecordingLog
from tests.support.waiting import soon
from tests.unit.test_texts import Evil


def letter(job_id: str, payload: str = "") -> DeadLetter:
    return DeadLetter(job_id, "film", {"payload": payload}, "error", "Error", "", 1)


class Office:
    """Two hooks: the first does what a test says, the second tells that it was called."""

    def __init__(self) -> None:
        self.log = RecordingLog()
        self.called: list[str] = []
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.error: BaseException | None = None
        handlers = Handlers()

        @handlers.on_dead
        async def first(dead: DeadLetter) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
            if self.error is not None:
                raise self.error

        @handlers.on_dead
        async def second(dead: DeadLetter) -> None:
            self.called.append(dead.id)

        self.hooks = DeadHooks(self.log, handlers)


async def test_a_bounded_number_of_hooks_runs_at_once_and_waits() -> None:
    office = Office()
    for number in range(AT_ONCE + WAITING_MAX + 3):
        office.hooks.call(letter(str(number)))
    await asyncio.sleep(0)
    assert office.running == AT_ONCE
    assert [line["job_id"] for line in office.log.of("hook.skipped")] == ["1032", "1033", "1034"]
    office.gate.set()
    await office.hooks.wait(10)
    assert office.most == AT_ONCE
    assert sorted(map(int, office.called)) == list(range(AT_ONCE + WAITING_MAX))


@pytest.mark.parametrize(
    "make", [lambda: OSError("no mail"), lambda: SystemExit(3), Evil, asyncio.CancelledError, KeyboardInterrupt]
)
async def test_whatever_a_hook_raises_the_next_is_called(make: Any) -> None:
    office = Office()
    office.error = make()
    office.gate.set()
    office.hooks.call(letter("dead"))
    await office.hooks.wait(10)
    assert office.called == ["dead"]
    [line] = office.log.of("hook.failed")
    assert (line["hook"], line["job_id"], line["exc_info"]) == ("first", "dead", office.error)


async def test_a_hook_that_hangs_keeps_no_place_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.01)
    office = Office()
    office.hooks.call(letter("dead"))
    await office.hooks.wait(10)
    assert office.called == ["dead"]
    assert isinstance(office.log.of("hook.failed")[0]["exc_info"], TimeoutError)


async def test_letters_that_wait_are_bounded_by_their_size_too() -> None:
    office = Office()
    for number in range(AT_ONCE):
        office.hooks.call(letter(str(number)))
    # One may be beyond the bound: else the hooks of large jobs would never wait.
    for job_id in ("large", "one more"):
        office.hooks.call(letter(job_id, "x" * WAITING_BYTES))
    [line] = office.log.of("hook.skipped")
    assert (line["job_id"], line["reason"]) == ("one more", "too many letters wait for theirs")
    office.gate.set()
    await soon(lambda: len(office.called) == AT_ONCE + 1)
    # What has had its turn counts no more.
    office.gate.clear()
    for number in range(AT_ONCE):
        office.hooks.call(letter(str(number)))
    for number in range(40):
        office.hooks.call(letter(f"wide {number}", "\U0001f3ac" * 2**17))
    assert len(office.log.of("hook.skipped")) == 1 + 40 - 32, "of half a megabyte each"
    office.gate.set()
    await office.hooks.wait(10)


async def test_a_stop_waits_for_hooks_no_longer_than_it_may_and_tells_of_the_others() -> None:
    office = Office()
    for number in range(AT_ONCE + 3):
        office.hooks.call(letter(str(number)))
    await office.hooks.wait(0)
    assert office.called == []
    assert office.log.of("hook.skipped") == [{"count": 3, "reason": "the daemon stops"}]
    # A settle that is answered only now is too late as well.
    office.hooks.call(letter("late"))
    assert office.log.of("hook.skipped")[1:] == [
        {"job_id": "late", "job_type": "film", "reason": "the daemon stops"},
    ]  # fmt: skip
    office.gate.set()
    await soon(lambda: not office.hooks._tasks)
    assert sorted(map(int, office.called)) == list(range(AT_ONCE))


async def test_a_stop_without_letters_that_wait_is_silent() -> None:
    office = Office()
    office.gate.set()
    office.hooks.call(letter("dead"))
    await office.hooks.wait(10)
    assert not office.log.records


async def test_the_place_of_a_hook_that_was_cancelled_is_free() -> None:
    office = Office()
    for number in range(AT_ONCE + 1):
        office.hooks.call(letter(str(number)))
    tasks = set(office.hooks._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    office.gate.set()
    await office.hooks.wait(10)
    assert office.called == [str(AT_ONCE)]
