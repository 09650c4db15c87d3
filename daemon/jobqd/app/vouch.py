"""Vouching: systemd's watchdog hears from the daemon as long as its event loop turns and no part of it is stuck."""

from __future__ import annotations

import asyncio
import linecache
from collections.abc import Callable, Iterable
from typing import Any

from jobqd.clock import World
from jobqd.pulse import Pulse
from jobqd.systemd import Notifier
from jobqd.units import format_duration

TURN_LIMIT = 120.0
"""Seconds that one turn of a part may take, or the watchdog's time if that is longer.

Redis's reply time-outs end any turn long before: a Redis that is away, or hangs, is never a reason.
"""
BLOCK_SHARE = 2 / 3
"""The part of the watchdog's time after which a blocked event loop is given up, so that this comes first."""
_PINGS = 4
_UNWATCHED_EVERY = 15.0


def block_limit(wanted: float, watchdog: float | None) -> float:
    """Return for how long (s) the event loop may be blocked: `block_limit`, unless the watchdog would act first."""
    return wanted if watchdog is None else min(wanted, watchdog * BLOCK_SHARE)


class Voucher:
    """One pass pings the watchdog, or says once why not. It looks on without a watchdog too, for the log's sake."""

    def __init__(
        self, notifier: Notifier, world: World, watchdog: float | None, *,
        pulses: Callable[[], Iterable[Pulse]], stuck: Callable[[], str | None],
    ) -> None:  # fmt: skip
        self._notifier = notifier
        self._clock = world.clock
        self._log = world.log
        self._limit = max(TURN_LIMIT, watchdog or 0.0)
        self._every = _UNWATCHED_EVERY if watchdog is None else watchdog / _PINGS
        self._pulses = pulses
        self._stuck = stuck
        self._part: str | None = None

    async def run(self) -> None:
        """Vouch until cancelled."""
        while True:
            self.run_once()
            await self._clock.sleep(self._every)

    def run_once(self) -> None:
        """Ping if every part makes progress; log what does not when that begins, and its end."""
        part, reason = self._ailment()
        if part is None:
            self._notifier.watchdog()
            if self._part is not None:
                self._log.info("daemon.vouches")
        elif part != self._part:
            self._log.critical("daemon.stuck", part=part, reason=reason, stack=stack_of_task(part) or None)
        self._part = part

    def _ailment(self) -> tuple[str | None, str]:
        now = self._clock.monotonic()
        for pulse in self._pulses():
            lasts = pulse.lasts(now)
            if lasts > self._limit:
                return pulse.name, f'its part "{pulse.name}" has been in one turn for {format_duration(round(lasts))}'
        reason = self._stuck()
        return (None, "") if reason is None else ("workers", reason)


def stack_of_task(name: str) -> str:
    """Return where the task of this name waits, outermost first; empty if there is none."""
    task = next((task for task in asyncio.all_tasks() if task.get_name() == name), None)
    lines = []
    waits: Any = None if task is None else task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            path, number = frame.f_code.co_filename, frame.f_lineno
            text = linecache.getline(path, number).strip()
            lines.append(f'  File "{path}", line {number}, in {frame.f_code.co_name}\n    {text}\n')
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return "".join(lines)
