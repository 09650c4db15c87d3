"""Running one job: what the daemon's own process tests cannot bring about."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from jobqd.errors import Fail, LeaseLost, Snooze
from jobqd.handlers import Handlers
from jobqd.job import Job, SyncJob
from jobqd.keys import Keys
from jobqd.runs import Completed, Ending, Failed, Interrupted, Snoozed
from jobqd.store import Target
from tests.support.assembled import assembled, enqueue
from tests.support.parts import NOW, claimed, policy, run_of
from tests.support.servers import NEWEST_ONLY
from tests.support.waiting import soon


async def execute(target: Target, keys: Keys, handlers: Handlers, job: Any, **limits: Any) -> Any:
    async with assembled(target, keys, handlers) as parts:
        run = run_of(job, policy(**limits), handlers.get(job.type))
        run.task = asyncio.current_task()
        return await parts.pool._executor.execute(run)


@NEWEST_ONLY
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Snooze("5m"), Snoozed(300.0)),
        (Fail("no"), Failed("no", "Fail", final=True)),
    ],
)
async def test_each_verb_is_an_outcome(target: Target, keys: Keys, error: Exception, outcome: object) -> None:
    handlers = Handlers()

    @handlers.job("verb")
    async def verb() -> None:
        raise error

    assert await execute(target, keys, handlers, claimed(type="verb")) == outcome


@NEWEST_ONLY
async def test_a_lost_lease_that_redis_did_not_tell_of_is_a_failure(target: Target, keys: Keys) -> None:
    handlers = Handlers()

    @handlers.job("claims")
    async def claims(job: Job) -> None:
        raise LeaseLost("x")

    outcome = await execute(target, keys, handlers, claimed(type="claims"))
    assert (type(outcome), outcome.error, outcome.error_type) == (Failed, "x", "LeaseLost")


@NEWEST_ONLY
@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_lost_lease_that_a_checkpoint_met_is_not_charged(target: Target, keys: Keys, in_thread: bool) -> None:
    handlers = Handlers()

    async def film(job: Job) -> None:
        await job.save_checkpoint({"frame": 1})

    def film_in_thread(job: SyncJob) -> None:
        job.save_checkpoint({"frame": 1})

    handlers.job("film")(film_in_thread if in_thread else film)  # type: ignore[arg-type]
    # There is no such job in Redis, so nobody owns it.
    assert await execute(target, keys, handlers, claimed(type="film")) == Interrupted("lost its lease")


@NEWEST_ONLY
async def test_an_expired_job_is_not_run(target: Target, keys: Keys) -> None:
    handlers = Handlers()

    @handlers.job("old")
    async def old() -> None:
        raise AssertionError("it ran")

    job = claimed(type="old", _due_at=NOW - 120)
    outcome = await execute(target, keys, handlers, job, max_age=60.0)
    assert outcome == Failed("expired: not finished within max_age (1m) after it was due", "Expired", final=True)


@NEWEST_ONLY
async def test_a_checkpoint_survives_a_retry_and_a_stale_run_cannot_save(
    target: Target, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    handlers = Handlers()
    seen: list[Any] = []
    stolen, lost = asyncio.Event(), asyncio.Event()

    @handlers.job("film", retry_delay="0s")
    async def film(job: Job) -> str:
        seen.append(job.checkpoint)
        if job.attempt == 1:
            await job.save_checkpoint({"frame": 100})
            raise OSError("lost the file")
        stolen.set()
        await lost.wait()
        with pytest.raises(LeaseLost, match=r"fence 2.*no longer owns job f"):
            await job.save_checkpoint({"frame": 0})
        return "refused"

    await enqueue(raw, keys, "f", "film")
    async with assembled(target, keys, handlers) as parts:
        await parts.claimer.run_once()
        await soon(lambda: len(parts.settler))
        await parts.settler.run_once()
        await parts.promoter.run_once()
        await parts.claimer.run_once()
        await stolen.wait()
        await raw.hset(keys.job("f"), "worker", "worker-2")
        lost.set()
        await soon(lambda: len(parts.settler))
        await parts.settler.run_once()
    assert seen == [None, {"frame": 100}]
    assert await raw.hget(keys.job("f"), "checkpoint") == '{"frame":100}'
    assert await raw.hget(keys.job("f"), "status") == "processing"


@NEWEST_ONLY
async def test_a_stop_during_an_around_reaches_the_thread_behind_it(target: Target, keys: Keys) -> None:
    handlers = Handlers()
    entering, go_on = asyncio.Event(), asyncio.Event()
    told: list[bool] = []

    @handlers.around
    async def slow(job: Any) -> AsyncIterator[None]:
        entering.set()
        await go_on.wait()
        yield

    @handlers.job("thread")
    def thread(job: SyncJob) -> None:
        told.append(job.stopping.is_set())

    async with assembled(target, keys, handlers) as parts:
        parts.pool.start(claimed(type="thread"))
        await entering.wait()
        draining = asyncio.create_task(parts.pool.drain(asyncio.Event(), 3))
        await asyncio.wait([draining], timeout=0)
        go_on.set()
        assert await draining == []
    assert told == [True]


@NEWEST_ONLY
async def test_context_variables_of_an_around_reach_the_thread(target: Target, keys: Keys) -> None:
    import contextvars  # noqa: PLC0415

    handlers = Handlers()
    session: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="none")

    @handlers.around
    async def with_session(job: Any) -> AsyncIterator[None]:
        session.set("open")
        yield

    @handlers.job("thread")
    def thread() -> list[Any]:
        return [session.get(), threading.current_thread() is threading.main_thread()]

    outcome = await execute(target, keys, handlers, claimed(type="thread"))
    assert outcome == Completed('["open",false]')


@NEWEST_ONLY
async def test_a_cancel_while_the_outcome_is_on_its_way_does_not_strike_it(target: Target, keys: Keys) -> None:
    handlers = Handlers()

    @handlers.job("quick")
    async def quick(job: Job) -> str:
        return "done"

    async with assembled(target, keys, handlers) as parts:
        run = run_of(claimed(type="quick"), policy(), handlers.get("quick"))
        executor = parts.pool._executor
        run.task = asyncio.create_task(executor.execute(run))  # type: ignore[arg-type]
        await run.task
        executor.interrupt(run, Ending.STOP)
        assert run.task.result() == Completed('"done"')
