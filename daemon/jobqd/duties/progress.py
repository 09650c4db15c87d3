"""Progress: the latest of each run, written and published at most ten times a second, the last always."""

from __future__ import annotations

import asyncio
import json

from jobqd.clock import Clock
from jobqd.keys import Seat
from jobqd.runs import Run
from jobqd.store import Link, running

INTERVAL = 0.1
_BATCH_MAX = 500
_STEP_LIMIT = 200
_ETA_MAX = 1e10
"""Three hundred years: who reads a longer time wants no more digits."""


class Estimate:
    """Estimates the remaining time of one run from its progress since the first report."""

    __slots__ = ("_percent", "_time")

    def __init__(self, percent: float, started: float, now: float) -> None:
        # A resumed job begins high: what the last run did says nothing about the speed of this one.
        self._percent, self._time = (percent, now) if percent > 0 else (0.0, started)

    def seconds(self, percent: float, now: float) -> float | None:
        """Return the estimated seconds until 100 %, None while there is nothing to go by."""
        done, spent = percent - self._percent, now - self._time
        if done <= 0 or spent <= 0:
            return None
        return max(0.0, (100.0 - percent) * spent / done)


class ProgressWriter:
    """Collects progress from all runs; each write takes the latest of every run that has news."""

    def __init__(self, link: Link, seat: Seat, clock: Clock) -> None:
        self._link = link
        self._seat = seat
        self._clock = clock
        self._news: dict[tuple[str, int], running.ProgressUpdate] = {}
        self._estimates: dict[tuple[str, int], Estimate] = {}
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()

    def report(self, run: Run, percent: float, step: str | None, eta_seconds: float | None) -> None:
        """Take the latest progress of a run, finite numbers (the job's own method has checked them)."""
        percent = min(100.0, max(0.0, percent))
        if eta_seconds is None:
            now = self._clock.monotonic()
            estimate = self._estimates.get(run.key)
            if estimate is None:
                estimate = self._estimates[run.key] = Estimate(percent, run.started, now)
            eta_seconds = estimate.seconds(percent, now)
        self._news[run.key] = _update(run, percent, step, eta_seconds)
        self._wake.set()

    async def wait(self) -> None:
        """Return when a run has news."""
        await self._wake.wait()

    async def run_once(self) -> float:
        """Send all news in one call; returns the seconds after which the next may go. Raises StoreError."""
        async with self._sending:
            batch = dict(list(self._news.items())[:_BATCH_MAX])
            if batch:
                await self._send(batch)
            else:
                # Only here: a turn that failed is followed by one that does not, though `finish` left nothing to send.
                self._wake.clear()
        return INTERVAL

    async def finish(self, run: Run) -> None:
        """Send the last news of a run, if there are any, before its outcome is settled. Raises StoreError."""
        self._estimates.pop(run.key, None)
        async with self._sending:
            news = self._news.get(run.key)
            if news is not None:
                await self._send({run.key: news})

    def forget(self, run: Run) -> None:
        """Drop what is kept for a run."""
        self._estimates.pop(run.key, None)
        self._news.pop(run.key, None)

    async def _send(self, batch: dict[tuple[str, int], running.ProgressUpdate]) -> None:
        await self._link.run(running.progress(self._seat, list(batch.values())))
        for key, update in batch.items():
            if self._news.get(key) is update:
                del self._news[key]


def _update(run: Run, percent: float, step: str | None, eta_seconds: float | None) -> running.ProgressUpdate:
    shown = f"{percent:g}"
    eta = "" if eta_seconds is None else f"{min(_ETA_MAX, max(0.0, eta_seconds)):.0f}"
    step = "" if step is None else str(step)[:_STEP_LIMIT]
    message: dict[str, object] = {"progress": int(percent) if percent == int(percent) else float(shown)}
    if step:
        message["step"] = step
    if eta:
        message["eta_seconds"] = int(eta)
    return running.ProgressUpdate(
        run.claimed.id, run.claimed.fence, shown, step, eta, json.dumps(message, separators=(",", ":"))
    )
