"""Watching the event loop from the heartbeat's thread: who keeps it waiting is named, and not waited for without end.

It looks from outside, so it works for a handler that sleeps, computes or waits for a lock. Against C code that keeps
the interpreter's lock it can do nothing: there the leases lapse, and the job is run in a child process.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from jobqd.clock import World
from jobqd.ownership import owner_of, trace
from jobqd.runs import Run, Runs
from jobqd.units import format_duration

BLOCKED_AFTER = 1.0
_FRAMES = 12

GiveUp = Callable[[Run | None, str], None]
"""Ends the process, given the run that blocks the loop (if it is one) and the reason."""


class LoopWatch:
    """Asks the loop for a sign of life; to be made on the loop's thread, `look` is called from another."""

    def __init__(self, runs: Runs, world: World, *, limit: float, give_up: GiveUp) -> None:
        self._runs = runs
        self._clock = world.clock
        self._log = world.log
        self.limit = limit
        """Seconds after which a loop that is still blocked is given up."""
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        trace(self._loop)
        self._thread = threading.get_ident()
        self._asked: float | None = None
        self._next_report = BLOCKED_AFTER

    @property
    def waiting(self) -> bool:
        """Whether the loop owes an answer."""
        return self._asked is not None

    def look(self) -> None:
        """Ask, or report the loop if it owes an answer for too long; past the limit, give up."""
        now = self._clock.monotonic()
        if self._asked is None:
            self._asked, self._next_report = now, BLOCKED_AFTER
            # Raises RuntimeError once the loop is closed; the heartbeat ends then.
            self._loop.call_soon_threadsafe(self._answer)
            return
        blocked = now - self._asked
        if blocked >= self._next_report:
            self._next_report = max(self._next_report * 4, blocked)
            self._report(blocked)
        if blocked >= self.limit:
            self._give_up(self._blocker(), f"it blocked the event loop for {format_duration(blocked)} (block_limit)")

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and self._next_report > BLOCKED_AFTER:
            self._log.warning("loop.unblocked", duration=self._clock.monotonic() - asked)

    def _report(self, blocked: float) -> None:
        run = self._blocker()
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame is not None else ""
        fields: dict[str, Any] = {}
        if run is not None:
            fields = {"job_id": run.claimed.id, "job_type": run.claimed.type, "fence": run.claimed.fence}
        self._log.error("loop.blocked", duration=blocked, stack=stack, **fields)

    def _blocker(self) -> Run | None:
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            return None
        if task is None:
            return None
        runs = self._runs.snapshot()
        owner = owner_of(task)
        return next((run for run in runs if run.task is task or run is owner), None)
