"""Stopping: claim no more, drain, hand back, flush; in this order, and within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jobqd.app import leaving
from jobqd.app.loops import Loops
from jobqd.app.parts import Parts
from jobqd.clock import Clock, World
from jobqd.runs import Ending, Interrupted
from jobqd.systemd import Notifier
from jobqd.units import format_duration

MARGIN = 5.0
"""Seconds that a stop takes at most beyond what running jobs are waited for, if the application's own code ends."""
HOOKS_PATIENCE = 10.0
_CLAIM_PATIENCE = 7.0
_HURRIED_MARGIN = 2.0
_LOOPS_PATIENCE = 2.0
_RESERVE = 1.0
_EXIT = 0.5
_LEAST = 0.3
_LEAVING = leaving.PATIENCE + 1.0
"""Seconds from the end of a stop to that of the process, at most."""


class Countdown:
    """Tells systemd, step by step, that the stop goes on; not beyond `until`, nor once the event loop stands still.

    Each step asks for ten seconds from now (EXTEND_TIMEOUT_USEC), so that TimeoutStopSec= of the unit is short; the
    last ones for less, since systemd never takes back what it granted.
    """

    EVERY, GRANT = 2.0, 10.0

    def __init__(self, notifier: Notifier, clock: Clock, running: Callable[[], int]) -> None:
        self._notifier = notifier
        self._clock = clock
        self._running = running
        self.until = 0.0
        """Monotonic time at which the stop is over, or goes wrong."""

    def allow(self, seconds: float) -> None:
        """Let the stop go on for so many seconds from now at least."""
        self.until = max(self.until, self._clock.monotonic() + seconds)

    @property
    def text(self) -> str:
        """What is left, for `systemctl status`."""
        left = max(0.0, self.until - self._clock.monotonic())
        return f"stopping: {self._running()} running, {format_duration(round(left))} left"

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            left = self.until - self._clock.monotonic()
            if left > 0:
                self._notifier.extend_timeout(min(self.GRANT, left + _LEAVING))
                self._notifier.status(self.text)
            await self._clock.sleep(self.EVERY)


class Shutdown:
    """One stop. `skip` is set by a second signal: running jobs are not waited for any more."""

    def __init__(self, parts: Parts, loops: Loops, notifier: Notifier, world: World, skip: asyncio.Event) -> None:
        self._parts = parts
        self._loops = loops
        self._notifier = notifier
        self._clock = world.clock
        self._log = world.log
        self._skip = skip
        self.countdown = Countdown(notifier, world.clock, lambda: parts.pool.busy)
        self.clean = False
        """Whether Redis knows how every run ended, so that nothing is left to be taken back."""
        self.stuck = False
        """Whether something still runs that cannot be ended: the process must exit hard."""

    async def run(self, claiming: asyncio.Task[None]) -> None:
        """Stop everything; `claiming` is the claimer's loop."""
        parts, settings = self._parts, self._parts.settings
        began = self._clock.monotonic()
        drained_by = max(began + settings.drain_timeout, parts.pool.drain_end(began, settings.max_interruptions))
        self._begin(drained_by + MARGIN)
        parts.claimer.stop()
        left = await parts.pool.drain(self._skip, settings.max_interruptions)
        if self._skip.is_set():
            drained_by = min(drained_by, self._clock.monotonic() + _HURRIED_MARGIN - MARGIN)
        end = drained_by + MARGIN - _EXIT
        await self._within(min(self._left(end - _RESERVE), _CLAIM_PATIENCE), claiming)
        for run in left:
            # Threads, and coroutines that ignore their cancel: this process ends as soon as their jobs are handed back.
            parts.settler.submit(run, run.outcome or Interrupted(str(Ending.STOP)))
        await self._flush(end - _RESERVE)
        self.countdown.allow(HOOKS_PATIENCE)
        await parts.reporter.wait_hooks(HOOKS_PATIENCE)
        parts.reporter.flush()
        # Before the loops: a settle under way may still be answered.
        self.clean = claiming.done() and not parts.claimer.unanswered and not len(parts.runs)
        parts.supervisor.stop()
        parts.heartbeat.stop()
        ended = await self._loops.end(min(self._left(end), _LOOPS_PATIENCE))
        self.stuck = bool(left) or not ended

    def _begin(self, until: float) -> None:
        parts = self._parts
        parts.presence.status = "draining"
        parts.heartbeat.hasten()
        self.countdown.until = until
        self._notifier.stopping(self.countdown.text)
        self._loops.start("countdown", self.countdown.run(), endless=True)
        self._log.info("daemon.draining", running=parts.pool.busy, timeout=parts.settings.drain_timeout)

    async def _flush(self, deadline: float) -> None:
        """Wait until Redis has every outcome; give up what it has not taken in time."""
        parts = self._parts
        waiting = asyncio.ensure_future(parts.settler.wait_idle())
        hurry = asyncio.ensure_future(self._skip.wait())
        await asyncio.wait((waiting, hurry), timeout=self._left(deadline), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await self._within(_LEAST, waiting)
        hurry.cancel()
        if not waiting.done():
            waiting.cancel()
            parts.settler.abandon(parts.reporter.not_recorded)

    def _left(self, deadline: float) -> float:
        return max(_LEAST, deadline - self._clock.monotonic())

    @staticmethod
    async def _within(seconds: float, task: asyncio.Future[None]) -> None:
        """Wait for a task, which is not cancelled: it may be inside a Redis call."""
        await asyncio.wait((task,), timeout=seconds)
