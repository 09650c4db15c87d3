"""The worker pool: a bounded number of runs at once, each a task of its own; caps per type; draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from jobqd.clock import World
from jobqd.executor import Executor
from jobqd.handlers import Handlers
from jobqd.job import Claimed
from jobqd.ownership import own
from jobqd.policy import Policies
from jobqd.retry import ERROR_LIMIT
from jobqd.runs import Ending, Failed, Interrupted, Outcome, Run, Runs, Snoozed
from jobqd.texts import class_name, repr_of, shorten_text

Submit = Callable[[Run, Outcome], None]
SUSPECTS = 2
"""How many jobs that crashed too often run at once: each is a process, and most likely one that dies."""
GRACE = 3.5
"""Seconds that a stop gives to runs that were told to end: for what they do then, and for their programs to end."""
HURRIED_GRACE = 1.0
"""The same once a second signal came."""
_KILL_PATIENCE = 1.0


class Pool:
    """Starts a run for each claimed job and hands its outcome on; a worker is free as soon as it has done so."""

    def __init__(
        self, concurrency: int, executor: Executor, runs: Runs, handlers: Handlers, policies: Policies, *,
        submit: Submit, on_start: Callable[[Run], None], on_free: Callable[[bool], None], world: World,
    ) -> None:  # fmt: skip
        self._concurrency = concurrency
        self._executor = executor
        self._runs = runs
        self._handlers = handlers
        self._policies = policies
        self._submit = submit
        self._on_start = on_start
        self._on_free = on_free
        self._clock = world.clock
        self._log = world.log
        self._busy: dict[Run, None] = {}
        self._running = dict.fromkeys(handlers.types, 0)
        self._caps: dict[str, int] = {}
        self._allowances: dict[str, int] = {}
        self.resize(concurrency)
        self._suspects = 0
        self._changed = asyncio.Event()

    def resize(self, concurrency: int) -> None:
        """Have so many workers, and the caps that hold now; runs beyond either go on to their end."""
        self._concurrency = concurrency
        types, cap_of = self._handlers.types, self._policies.cap
        self._caps = {name: cap for name in types if (cap := cap_of(name)) is not None}
        self._allowances = dict.fromkeys(types, -1)

    @property
    def idle(self) -> int:
        """How many workers are free; below 0 while more run than there are workers now."""
        return self._concurrency - len(self._busy)

    @property
    def busy(self) -> int:
        """How many workers run a handler."""
        return len(self._busy)

    @property
    def concurrency(self) -> int:
        """How many workers there are."""
        return self._concurrency

    def allowances(self) -> Mapping[str, int]:
        """Return for each type with a handler how many more of it may start now; -1 for those without a cap."""
        for name, cap in self._caps.items():
            self._allowances[name] = max(0, cap - self._running[name])
        return self._allowances

    @property
    def room_for_suspects(self) -> int:
        """How many more suspects may start now."""
        return max(0, SUSPECTS - self._suspects)

    def start(self, claimed: Claimed) -> None:
        """Begin the run of a claimed job."""
        older = self._runs.holds(claimed.id)
        handler = self._handlers.get(claimed.type)
        run = Run(claimed, handler, self._policies.of(claimed), self._clock.monotonic())
        self._runs.add(run)
        if older:
            # Its older run has lost the lease but not ended: two at once in one process would share what they write.
            self._submit(run, Snoozed(1.0))
            return
        self._busy[run] = None
        if claimed.type in self._running:
            self._running[claimed.type] += 1
        self._suspects += run.suspect
        if self._log.is_enabled_for(logging.DEBUG):
            self._log.debug(
                "job.started", job_id=claimed.id, job_type=claimed.type, attempt=claimed.attempts + 1,
                fence=claimed.fence, waited=claimed.waited(),
            )  # fmt: skip
        self._on_start(run)
        run.task = asyncio.get_running_loop().create_task(self._work(run))

    @property
    def overstaying(self) -> list[Run]:
        """The runs that were told to end long ago and have not: each keeps a worker."""
        return [run for run in self._busy if self._executor.overstays(run)]

    def hand_back(self, claimed: Claimed, reason: str) -> None:
        """Give back a job that was claimed but will not be begun."""
        run = Run(claimed, None, self._policies.of(claimed), self._clock.monotonic())
        self._runs.add(run)
        self._submit(run, Interrupted(reason, begun=False))

    async def _work(self, run: Run) -> None:
        own(run)
        outcome: Outcome
        try:
            outcome = await self._executor.execute(run)
        except BaseException as error:  # noqa: BLE001 - a run must end, or its lease is renewed for ever
            self._log.exception("job.broke", job_id=run.claimed.id, job_type=run.claimed.type)
            problem = shorten_text(repr_of(error), ERROR_LIMIT)
            outcome = Failed(f"the run could not be brought to its end: {problem}", class_name(error))
        run.ended = self._clock.monotonic()
        job_type = run.claimed.type
        if job_type in self._running:
            self._running[job_type] -= 1
        self._suspects -= run.suspect
        self._busy.pop(run, None)
        self._changed.set()
        if not run.given_up:
            # Also after a cancel or a lost lease: Redis knows whose the job is, we may have been told wrongly.
            self._submit(run, outcome)
        self._on_free(job_type in self._caps or run.suspect)

    def end(self, job_id: str, fence: int | None, ending: Ending) -> int:
        """End the runs of a job that was cancelled or whose lease was lost; returns how many.

        `fence` None means any run. One that has ended, or was told to end, is left alone.
        """
        found = [
            run
            for run in self._runs.of(job_id)
            if fence in (None, run.claimed.fence) and run in self._busy and run.ending is None
        ]
        for run in found:
            self._executor.interrupt(run, ending)
        return len(found)

    async def drain(self, skip: asyncio.Event, max_interruptions: int, grace: float = GRACE) -> list[Run]:
        """Ask every run to finish, wait as long as each may take, then end the rest.

        Setting `skip` ends the wait, and shortens the grace, which is for what a handler does when it is ended. Returns
        the runs that did not end even so.
        """
        began = self._clock.monotonic()
        for run in self._busy:
            run.ask_to_finish()
        await self._wait_for_runs(skip, began, max_interruptions)
        for run in list(self._busy):
            self._stop(run)
        if self._busy and not skip.is_set():  # of a second signal the log tells already
            self._log.info("daemon.drained", running=len(self._busy))
        await self._wait_for_endings(skip, grace)
        return await self._give_up()

    def drain_end(self, began: float, max_interruptions: int) -> float:
        """Return when a drain that began then (monotonic) has ended the last of the runs of now, grace aside."""
        return max((self._deadline(run, began, max_interruptions) for run in self._busy), default=began)

    def _deadline(self, run: Run, began: float, max_interruptions: int) -> float:
        """Return when a stop ends a run: a job that was interrupted often enough may use its whole timeout."""
        if run.claimed.interruptions >= max_interruptions:
            return run.started + run.policy.timeout + 1.0
        # As it is set now, not when the run began: it belongs to the stop.
        return began + self._policies.of_type(run.claimed.type).drain_timeout

    async def _wait_for_runs(self, skip: asyncio.Event, began: float, max_interruptions: int) -> None:
        while self._busy and not skip.is_set():
            now = self._clock.monotonic()
            deadlines = {run: self._deadline(run, began, max_interruptions) for run in self._busy}
            for run, deadline in deadlines.items():
                if deadline <= now:
                    self._stop(run)
            coming = [deadline - now for deadline in deadlines.values() if deadline > now]
            if not coming:
                return
            await self._wait_change(min(coming), skip)

    async def _wait_for_endings(self, skip: asyncio.Event, grace: float) -> None:
        hurrying, end = False, self._clock.monotonic() + grace
        while self._busy:
            if skip.is_set() and not hurrying:
                hurrying, end = True, min(end, self._clock.monotonic() + HURRIED_GRACE)
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            await self._wait_change(left, None if hurrying else skip)

    async def _give_up(self) -> list[Run]:
        unended = list(self._busy)
        for run in unended:
            # From here on its job is handed back: whatever it still returns comes too late.
            run.given_up, run.ended = True, self._clock.monotonic()
        if unended:
            endings = [asyncio.ensure_future(self._executor.end_programs(run)) for run in unended]
            await asyncio.wait(endings, timeout=_KILL_PATIENCE)
        return unended

    def _stop(self, run: Run) -> None:
        if run.ending is None and not run.returned:
            self._executor.interrupt(run, Ending.STOP)

    async def _wait_change(self, seconds: float, skip: asyncio.Event | None) -> None:
        self._changed.clear()
        waits = [asyncio.ensure_future(self._changed.wait())]
        if skip is not None:
            waits.append(asyncio.ensure_future(skip.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
