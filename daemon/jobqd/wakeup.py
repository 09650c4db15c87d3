"""Wake-up: the claimer sleeps until the ready set changes, with no polling where the server allows tracking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jobqd.clock import World
from jobqd.errors import StoreError
from jobqd.keys import Keys
from jobqd.pulse import Pulse
from jobqd.store.connect import Target
from jobqd.store.tracking import TrackedLink

CHECK_EVERY = 5.0
POLL_EVERY = 0.25


class Wakeup:
    """The tracked claim connection and the flag that says the ready set may have changed."""

    def __init__(
        self, target: Target, keys: Keys, world: World, *, on_wake: Callable[[], None],
        on_cancel: Callable[[str], None], on_rest: Callable[[str, bool], None], claiming: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._log = world.log
        self._clock = world.clock
        self._on_wake = on_wake
        self._on_cancel = on_cancel
        self._on_rest = on_rest
        self._claiming = claiming
        self._told: str | None = None
        self._next_check = 0.0
        self._away = False
        self.pulse = Pulse("wakeup", world.clock)
        self.link = TrackedLink(target, keys.ready, keys.control, on_change=self._changed, on_control=self._control)
        self.pending = True
        """Whether there may be something to claim; cleared before a claim is sent, never after."""

    @property
    def polling(self) -> str | None:
        """Why the server refuses tracking, None while it works."""
        return self.link.refused

    async def run(self, stop: asyncio.Event) -> None:
        """Check from time to time that the server is heard and still tracks; where it refuses to, poll."""
        while not stop.is_set():
            self._away = False
            with self.pulse:
                await self.run_once()
            calm = self._away or (self.link.connected and self.link.refused is None)
            pause = self._clock.sleep(CHECK_EVERY if calm else POLL_EVERY)
            await _either(pause, stop)

    async def run_once(self) -> None:
        """One check: wake the claimer if tracking is off, broken, or unknown.

        The subscriber is asked where tracking is refused too, if less often than the claimer is woken: it also takes
        orders.
        """
        polling = self.link.refused is not None
        if polling:
            self._tell_of_polling()
        if polling or not self.link.connected:
            # The claim that this provokes connects, or is connecting now.
            self._changed()
        if not self.link.connected:
            if not self._claiming():
                await self._connect()
            return
        now = self._clock.monotonic()
        if polling and now < self._next_check:
            return
        self._next_check = now + CHECK_EVERY
        generation = self.link.generation
        try:
            healthy = await self.link.healthy()
        except StoreError:
            healthy = False
        if not healthy:
            # A claim may have connected anew meanwhile.
            await self.link.close(generation)
            self._changed()

    def _tell_of_polling(self) -> None:
        refused = self.link.refused
        if refused != self._told:
            self._told = refused
            self._log.warning("wakeup.polling", interval=POLL_EVERY, error=refused)

    async def _connect(self) -> None:
        """Make the connection that no claim will make soon: a daemon that is quiet or full still takes orders."""
        try:
            await self.link.command("PING")
        except StoreError:
            self._away = True

    def _changed(self) -> None:
        self.pending = True
        self._on_wake()

    def _control(self, message: str) -> None:
        verb, _, rest = message.partition(" ")
        if verb == "cancel":
            self._on_cancel(rest)
        elif verb in ("quiet", "resume"):
            self._on_rest(rest, verb == "quiet")


async def _either(pause: Any, stop: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(pause), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
