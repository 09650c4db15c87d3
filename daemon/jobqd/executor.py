"""One run of one job, from its fields to its outcome: a pipeline that returns data and never raises."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jobqd.children import ChildError, Children
from jobqd.context import RunContext, Services
from jobqd.errors import ArgumentError, StoreError
from jobqd.handlers import Handler, ResultError, encode_result
from jobqd.job import Job, SyncJob
from jobqd.reminder import Reminder
from jobqd.retry import expired
from jobqd.runs import Completed, Crashed, Ending, Failed, Interrupted, Outcome, Run, Snoozed
from jobqd.units import format_duration
from jobqd.verdict import failure_of, outcome_of_ending, outcome_of_error

_RESTART_PAUSE = 10.0
"""Seconds after which a job that needs a process is tried again, while jobqd on disk is not the one that runs."""


class Executor:
    """Runs handlers. Cancellation comes only through `interrupt`, and only while a handler runs."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._endings: set[asyncio.Task[None]] = set()
        self.reminder = Reminder(services.world.log)

    async def execute(self, run: Run) -> Outcome:
        """Run the job's handler and return how it ended."""
        claimed, handler = run.claimed, run.handler
        if expired(claimed, run.policy):
            age = format_duration(run.policy.max_age)
            return Failed(f"expired: not finished within max_age ({age}) after it was due", "Expired", final=True)
        if claimed.unfit:
            return Failed(claimed.unfit, "ArgumentError", final=True)
        if handler is None:
            return Failed("the job has no type: set the field `type`", "ArgumentError", final=True)
        if (run.suspect or handler.options.process) and self._services.children is not None:
            return await self._in_child(run, self._services.children)
        try:
            arguments = handler.bind(claimed.fields)
        except ArgumentError as error:
            return Failed(str(error), "ArgumentError", final=True)
        except Exception as error:  # noqa: BLE001 - a check of the application's own, inside a type hint, broke
            return failure_of(error)
        if run.ending is not None:
            # It was ended between its claim and its first step, when there was nothing to cancel.
            return Interrupted(str(run.ending), begun=False)
        return await self._perform(run, handler, arguments)

    def interrupt(self, run: Run, ending: Ending) -> None:
        """End a run: its handler gets CancelledError, or, in a thread, its `stopping` event and `Stopped`."""
        if run.ending is None:
            run.ending = ending
        run.ask_to_finish()
        if run.child is not None:
            run.child.end(run.ending)
        elif run.thread is not None:
            # The thread may be waiting for a line of a program's output.
            self._endings.add(end := self._loop.create_task(run.context.close()))
            end.add_done_callback(self._endings.discard)
            self.reminder.watch(run)
        elif run.performing and run.task is not None:
            run.task.cancel()
            self.reminder.watch(run)

    def overstays(self, run: Run) -> bool:
        """Whether a run was told to end and is still here long after."""
        return self.reminder.overdue(run)

    async def end_programs(self, run: Run) -> None:
        """Kill the programs and the process of a run that does not end: its job may be handed on only after that."""
        if run.context is not None:
            await run.context.kill()
        if run.child is not None:
            run.child.kill_all()
            await run.child.close()

    async def _in_child(self, run: Run, children: Children) -> Outcome:
        """Let all of this happen in a process of its own; here are only its limits, and what it reports."""
        if run.ending is not None:
            return outcome_of_ending(run, run.ending)
        if children.outdated():
            return Snoozed(_RESTART_PAUSE)
        files = children.edition.signature()
        context = run.context = RunContext(run, self._services)
        child = run.child = children.child(run, context)
        if run.asked:
            child.ask_to_finish()
        outcome: Outcome
        try:
            async with AsyncExitStack() as limits:
                await child.start()
                timer = self._loop.call_later(run.policy.timeout, self.interrupt, run, Ending.TIMEOUT)
                limits.callback(timer.cancel)
                await limits.enter_async_context(self._watched(run, context))
                outcome = await child.outcome()
        except ChildError as error:
            # While files are replaced there may be nothing to import; the job is not to blame.
            upgrade = children.edition.disturbed(files)
            outcome = Snoozed(_RESTART_PAUSE) if upgrade else Failed(str(error), "ChildError", error.printed)
        finally:
            await child.close()
            await self._close(run, context)
        if run.ending is not None and not run.returned and not isinstance(outcome, Completed | Crashed):
            return outcome_of_ending(run, run.ending)
        return outcome

    async def _perform(self, run: Run, handler: Handler[..., Any], arguments: dict[str, Any]) -> Outcome:
        timer = self._loop.call_later(run.policy.timeout, self.interrupt, run, Ending.TIMEOUT)
        context: RunContext | None = None
        run.performing = True
        try:
            if handler.wants_job or self._services.handlers.arounds or not handler.is_async:
                context = run.context = RunContext(run, self._services)
                value = await self._with_job(run, handler, arguments, context)
            else:
                value = await handler.invoke(None, arguments)
            run.performing, run.returned = False, True
            outcome = run.outcome = self._completed(run, value)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is data here
            run.performing, run.returned = False, True
            outcome = run.outcome = self._ended(run, error)
        finally:
            timer.cancel()
            if run.ending is not None:
                self.reminder.forget(run)
        if context is not None:
            # In a task of its own: a cancel that the application left behind must not strike what follows.
            await asyncio.shield(self._loop.create_task(self._close(run, context)))
        return outcome

    async def _with_job(
        self, run: Run, handler: Handler[..., Any], arguments: dict[str, Any], context: RunContext
    ) -> Any:
        run.stopping = asyncio.Event()
        if run.asked:
            run.stopping.set()
        job = Job(run.claimed, context, run.stopping)
        async with self._watched(run, context):
            if handler.is_async:
                return await self._around(job, lambda: handler.invoke(job, arguments))
            return await self._around(job, lambda: self._in_thread(run, handler, arguments, context))

    async def _around(self, job: Any, call: Callable[[], Any]) -> Any:
        if not self._services.handlers.arounds:
            return await call()
        raised: BaseException | None = None
        async with AsyncExitStack() as stack:
            for around in self._services.handlers.arounds:
                await stack.enter_async_context(around(job))
            try:
                return await call()
            except BaseException as error:
                raised = error
                raise
        # An around swallowed it, by mistake more likely than not: a failure must not pass for a result.
        assert raised is not None  # noqa: S101 - the block above returns or raises
        raise raised

    async def _in_thread(
        self, run: Run, handler: Handler[..., Any], arguments: dict[str, Any], context: RunContext
    ) -> Any:
        run.thread = threading.Event()
        if run.stopping is not None and run.stopping.is_set():
            # The stop came while an `around` was entered.
            run.thread.set()
        job = SyncJob(run.claimed, context, run.thread, self._loop)
        scope = contextvars.copy_context()

        def call() -> Any:
            run.thread_id = threading.get_ident()
            try:
                return scope.run(handler.invoke, job, arguments)
            except StopIteration as error:
                # A future refuses this one, and whoever waits for it would wait for ever (PEP 479 does the same).
                raise RuntimeError("the handler raised StopIteration") from error

        try:
            return await self._loop.run_in_executor(self._services.threads, call)
        finally:
            # What an `around` does from here on is cancelled like any coroutine.
            run.thread = None

    @asynccontextmanager
    async def _watched(self, run: Run, context: RunContext) -> AsyncIterator[None]:
        """End a run that reports no progress for `stall_timeout`."""
        limit = run.policy.stall_timeout
        if limit is None:
            yield
            return

        def stalled() -> None:
            if context.saving:
                again()
            else:
                self.interrupt(run, Ending.STALLED)

        timer = self._loop.call_later(limit, stalled)

        def again() -> None:
            nonlocal timer
            timer.cancel()
            timer = self._loop.call_later(limit, stalled)

        context.on_progress = again
        try:
            yield
        finally:
            context.on_progress = None
            timer.cancel()

    async def _close(self, run: Run, context: RunContext) -> None:
        """Programs end, and the last progress is sent, before the job goes on."""
        await context.close()
        try:
            await self._services.progress.finish(run)
        except StoreError:
            # The outcome waits for Redis and is worth more than a percentage.
            self._services.progress.forget(run)

    def _completed(self, run: Run, value: Any) -> Outcome:
        if run.task is not None:
            # The handler returned in spite of a cancel, ours or its own; it must not strike what follows.
            _uncancel(run.task)
        try:
            return Completed(encode_result(value, self._services.max_result))
        except ResultError as error:
            return Failed(str(error), "ResultError", final=True)

    def _ended(self, run: Run, error: BaseException) -> Outcome:
        if run.task is not None:
            _uncancel(run.task)
        if run.ending is not None:
            return outcome_of_ending(run, run.ending)
        return outcome_of_error(error, lease_lost=run.context is not None and run.context.lease_lost)


def _uncancel(task: asyncio.Task[None]) -> None:
    while task.cancelling():
        task.uncancel()
