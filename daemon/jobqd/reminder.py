"""Runs that were told to end and do not: told again, named in the log, and counted as lost to their workers."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import Any

from jobqd.clock import Log
from jobqd.runs import Run

REMIND_EVERY = 10.0
_FRAMES = 12


class Reminder:
    """Looks at each run that it is given after a while; to be made on the running loop."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._looks: dict[Run, asyncio.TimerHandle] = {}
        self._overdue: set[Run] = set()

    def watch(self, run: Run) -> None:
        """Look at a run that was told to end until it has; however often it is told, one look is under way."""
        if run not in self._looks:
            self._looks[run] = self._loop.call_later(REMIND_EVERY, self.remind, run)

    def overdue(self, run: Run) -> bool:
        """Whether a run that was told to end was still there at the last look."""
        return run in self._overdue

    def forget(self, run: Run) -> None:
        """Take note that a run has ended."""
        self._overdue.discard(run)
        look = self._looks.pop(run, None)
        if look is not None:
            look.cancel()

    def remind(self, run: Run) -> None:
        """Look at a run: tell it again, or name a thread, which nothing can end, once."""
        self._looks.pop(run, None)
        if not run.performing or run.task is None:
            return
        facts: dict[str, Any] = {
            "job_id": run.claimed.id, "job_type": run.claimed.type, "fence": run.claimed.fence,
            "ending": str(run.ending),
        }  # fmt: skip
        if run.thread is None:
            self._log.warning("job.ignores_cancel", **facts)
            run.task.cancel()
        elif run not in self._overdue:
            self._log.warning("job.keeps_thread", stack=stack_of(run.thread_id), **facts)
        self._overdue.add(run)
        self.watch(run)


def stack_of(thread_id: int) -> str:
    """Return what a thread does, its innermost calls last; empty if it is gone."""
    frame = sys._current_frames().get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
