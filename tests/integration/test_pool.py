"""The worker pool: runs that end, runs that are ended, runs that will not end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobqd.app.parts import Parts
from jobqd.handlers import Handlers
from jobqd.job import Job
from jobqd.keys import Keys
from jobqd.runs import Completed, Ending, Interrupted, Run, Snoozed
from jobqd.store import Target
from tests.redis_server import RedisServer
from tests.support.assembled import assembled
from tests.support.log import RecordingLog
from tests.support.parts import claimed
from tests.support.servers import newest_server
from tests.support.waiting import soon


class Works:
    def __init__(self) -> None:
        self.handlers = Handlers()
        self.events: list[str] = []
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()
        self.log = RecordingLog()

        @self.handlers.job("waits", concurrency=1)
        async def waits(job: Job) -> str:
            self.events.append(f"started {job.fence}")
            try:
                await self.gate.wait()
            finally:
                self.events.append(f"ended {job.fence}")
            return "done"

        @self.handlers.job("thread")
        def thread() -> None:
            self.thread_gate.wait(20)

        @self.handlers.job("stubborn")
        async def stubborn() -> str:
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.events.append("asked")
            return "in the end"


@pytest.fixture
async def works() -> AsyncIterator[Works]:
    works = Works()
    yield works
    works.gate.set()
    works.thread_gate.set()


@pytest.fixture(scope="module")
def server() -> Any:
    with newest_server() as server:
        yield server


@asynccontextmanager
async def pool_of(server: RedisServer, works: Works) -> AsyncIterator[Parts]:
    async with assembled(Target(server.url), Keys(), works.handlers, log=works.log, concurrency=4) as parts:
        parts.submitted = submitted = []  # type: ignore[attr-defined]
        parts.pool._submit = lambda run, outcome: submitted.append((run, outcome))
        yield parts


def outcomes(parts: Parts) -> list[Any]:
    return [outcome for _, outcome in parts.submitted]  # type: ignore[attr-defined]


async def test_a_run_frees_its_worker_before_its_outcome_is_in_redis(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits"))
        await soon(lambda: works.events)
        assert (parts.pool.busy, parts.pool.idle, parts.pool.allowances()["waits"]) == (1, 3, 0)
        works.gate.set()
        await soon(lambda: outcomes(parts))
        assert outcomes(parts) == [Completed('"done"')]
        assert (parts.pool.busy, parts.pool.allowances()["waits"]) == (0, 1)
        assert len(parts.runs) == 1


async def test_a_run_that_is_ended_before_its_first_step_never_runs(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits"))
        parts.pool.end("job", None, Ending.CANCELLED)
        await soon(lambda: not parts.pool.busy)
        assert works.events == []
        assert outcomes(parts) == [Interrupted("cancelled", begun=False)]


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.LOST])
async def test_a_run_whose_job_is_said_to_be_gone_is_ended_and_redis_has_the_last_word(
    server: RedisServer, works: Works, ending: Ending
) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits"))
        await soon(lambda: works.events)
        parts.pool.end("job", 2, ending)
        assert parts.runs.of("job")[0].ending is None, "another run was meant"
        parts.pool.end("job", 1, ending)
        await soon(lambda: not parts.pool.busy)
        assert works.events == ["started 1", "ended 1"]
        assert outcomes(parts) == [Interrupted(str(ending))]


async def test_a_job_whose_older_run_still_lives_here_waits_for_its_end(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(fence=1, type="waits"))
        await soon(lambda: works.events)
        parts.pool.start(claimed(fence=2, type="waits"))
        assert outcomes(parts) == [Snoozed(1.0)]
        assert parts.pool.busy == 1
        assert works.events == ["started 1"]


async def test_what_is_handed_back_was_never_begun(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.hand_back(claimed(type="waits"), "the daemon stops")
        assert outcomes(parts) == [Interrupted("the daemon stops", begun=False)]
        assert works.events == []
        assert parts.runs.holds("job")


async def test_a_drain_waits_for_what_runs(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits"))
        await soon(lambda: works.events)
        draining = asyncio.create_task(parts.pool.drain(asyncio.Event(), 3))
        await asyncio.wait([draining], timeout=0.01)
        assert not draining.done()
        works.gate.set()
        assert await draining == []
        assert outcomes(parts) == [Completed('"done"')]


async def test_a_drain_that_is_skipped_ends_what_runs(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits", interruptions=99))
        await soon(lambda: works.events)
        skip = asyncio.Event()
        draining = asyncio.create_task(parts.pool.drain(skip, 3))
        skip.set()
        assert await draining == []
        assert outcomes(parts) == [Interrupted("the daemon stops")]
        assert not works.log.of("daemon.drained")


async def test_the_end_of_a_drain_is_told(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="waits"))
        await soon(lambda: works.events)
        parts.pool._deadline = lambda *_: 0.0  # type: ignore[method-assign]
        assert await parts.pool.drain(asyncio.Event(), 3) == []
        (told,) = works.log.of("daemon.drained")
        assert told == {"running": 1}


async def test_a_drain_names_the_runs_that_do_not_end(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        for job_type in ("thread", "stubborn", "waits"):
            parts.pool.start(claimed(job_type, type=job_type))
        await soon(lambda: works.events)
        skip = asyncio.Event()
        skip.set()
        left = await parts.pool.drain(skip, 3, grace=0.05)
        assert sorted(run.claimed.id for run in left) == ["stubborn", "thread"]
        assert "asked" in works.events
        works.gate.set()
        works.thread_gate.set()
        await soon(lambda: not parts.pool.busy)


async def test_a_handler_that_ignores_its_cancel_is_reminded_and_named(server: RedisServer, works: Works) -> None:
    async with pool_of(server, works) as parts:
        parts.pool.start(claimed(type="stubborn"))
        await soon(lambda: parts.runs.of("job")[0].performing)
        (run,) = parts.runs.of("job")
        executor = parts.pool._executor
        executor.interrupt(run, Ending.TIMEOUT)
        await soon(lambda: works.events == ["asked"])
        executor.reminder.remind(run)  # what the loop's timer calls
        await soon(lambda: works.events == ["asked", "asked"])
        (told,) = works.log.of("job.ignores_cancel")
        assert (told["job_id"], told["ending"]) == ("job", "timeout")
        works.gate.set()
        await soon(lambda: outcomes(parts))
        # A return with the lease held is a completion, and no cancel is left over for what follows.
        assert outcomes(parts) == [Completed('"in the end"')]
        assert isinstance(run, Run)
        assert run.task is not None
        assert run.task.cancelling() == 0


async def test_a_run_that_breaks_on_our_side_is_settled_all_the_same(
    server: RedisServer, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its lease would be renewed for ever, and nobody would hear of it."""
    async with pool_of(server, works) as parts:

        async def breaks(run: object) -> None:
            raise RuntimeError("a defect of ours")

        monkeypatch.setattr(parts.pool._executor, "execute", breaks)
        parts.pool.start(claimed(type="waits"))
        await soon(lambda: outcomes(parts))
        (outcome,) = outcomes(parts)
        assert (outcome.error_type, "a defect of ours" in outcome.error) == ("RuntimeError", True)
        assert (parts.pool.busy, parts.pool.allowances()["waits"]) == (0, 1)
        assert works.log.of("job.broke")
