"""The supervisor: settles what workers hand in and repeats the other duties, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from jobqd.clock import Clock
from jobqd.duties.outage import Outage
from jobqd.duties.settle import Settler
from jobqd.errors import StoreError
from jobqd.pulse import Pulse


class Duty(Protocol):
    """One pass at a time; returns the seconds until the next. Raises StoreError when Redis does not serve it."""

    async def run_once(self) -> float:
        """Make one pass."""


class Waiting(Duty, Protocol):
    """A duty that has something to do only at times."""

    async def wait(self) -> None:
        """Return when a pass is worth making."""


class Supervisor:
    """Repeats duties until stopped. A stop is a flag: the pass under way is awaited, never cancelled."""

    def __init__(self, settler: Settler, outage: Outage, clock: Clock, *, on_unstuck: Callable[[], Any]) -> None:
        self._settler = settler
        self._outage = outage
        self._clock = clock
        self._on_unstuck = on_unstuck
        self._stop = asyncio.Event()
        self._hurry: dict[str, asyncio.Event] = {}
        self.pulses: dict[str, Pulse] = {}
        """Of each duty that is repeated."""

    def stop(self) -> None:
        """End every loop after the pass under way."""
        self._stop.set()

    def hasten(self, name: str, delay: float) -> None:
        """Make the next pass of a periodic duty after `delay` seconds at the latest."""
        event = self._hurry.get(name)
        if event is not None:
            asyncio.get_running_loop().call_later(delay, event.set)

    async def settle(self) -> None:
        """Settle until stopped."""
        pulse = self._pulse("settle")
        while not self._stop.is_set():
            if not len(self._settler):
                await self._either(self._settler.wait())
                continue
            stuck = self._settler.stuck
            with pulse:
                delay = await self._settler.run_once()
            if stuck and not self._settler.stuck:
                self._on_unstuck()
            if delay > 0:
                await self._either(self._clock.sleep(delay))

    async def periodic(self, name: str, duty: Duty) -> None:
        """Repeat a duty at the pace it asks for."""
        hurry = self._hurry[name] = asyncio.Event()
        pulse = self._pulse(name)
        while not self._stop.is_set():
            hurry.clear()
            with pulse:
                delay = await self._pass(name, duty)
            if delay > 0:
                await self._either(self._clock.sleep(delay), hurry.wait())

    async def on_demand(self, name: str, duty: Waiting) -> None:
        """Repeat a duty whenever it has something to do."""
        pulse = self._pulse(name)
        while not self._stop.is_set():
            await self._either(duty.wait())
            if self._stop.is_set():
                return
            with pulse:
                delay = await self._pass(name, duty)
            await self._either(self._clock.sleep(delay))

    def _pulse(self, name: str) -> Pulse:
        pulse = self.pulses[name] = Pulse(name, self._clock)
        return pulse

    async def _pass(self, name: str, duty: Duty) -> float:
        try:
            delay = await duty.run_once()
        except StoreError as error:
            return max(0.001, self._outage.failed(name, error))
        self._outage.succeeded(name)
        return delay

    async def _either(self, *waits: Any) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in (*waits, self._stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
