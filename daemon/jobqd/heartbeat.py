"""The heartbeat: a thread that renews every lease, so that a handler that blocks the event loop costs nobody a lease.

Between renewals it has the loop watched (`jobqd.loopwatch`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from jobqd.clock import World
from jobqd.duties.outage import Outage
from jobqd.duties.trust import Trust
from jobqd.errors import StoreError
from jobqd.keys import Seat
from jobqd.loopwatch import LoopWatch
from jobqd.pulse import Pulse
from jobqd.runs import Runs
from jobqd.store import SyncIdentity, SyncLink, running
from jobqd.store.call import Argument

_JOIN_PATIENCE = 1.0

OnLost = Callable[[str, int, str], None]
"""Called on the loop with (id, fence, "cancelled" or "lost")."""
Describe = Callable[[], Mapping[str, Argument]]


class Heartbeat:
    """The thread. `beat_once` is one renewal; tests call it."""

    def __init__(
        self, link: SyncLink, seat: Seat, runs: Runs, outage: Outage, world: World, *,
        watch: LoopWatch, describe: Describe, on_lost: OnLost,
    ) -> None:  # fmt: skip
        self._link = link
        self._seat = seat
        self._runs = runs
        self._outage = outage
        self._clock = world.clock
        self._log = world.log
        self._watch = watch
        self._describe = describe
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobqd-heartbeat", daemon=True)
        self._identity = SyncIdentity(link)
        self._hastened = False
        self.pulse = Pulse("heartbeat", world.clock)
        self.trust = Trust(seat.lease)

    def start(self) -> None:
        """Begin; call on the loop's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; the thread ends after the renewal under way, and `died` returns then."""
        self._stop.set()
        if not self._thread.is_alive():
            self._done()

    def close(self) -> None:
        """Stop, and wait for the thread, but no longer than a second: Redis may hang."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=_JOIN_PATIENCE)
        if not self._thread.is_alive():
            self._link.close()

    def hasten(self) -> None:
        """Renew within half a second: others are waiting to read what this daemon says of itself."""
        self._hastened = True

    async def died(self) -> None:
        """Raise what ended the thread, if anything did; return when it was stopped."""
        await self._ended

    def _run(self) -> None:
        try:
            self._beat()
        except BaseException as error:  # noqa: BLE001 - a daemon that renews nothing must end
            self._call(self._fail, error)
        else:
            self._call(self._done)

    def _done(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _beat(self) -> None:
        next_beat = self._clock.monotonic()
        look_every = min(0.5, self._seat.lease / 3)
        while not self._stop.is_set():
            with self.pulse:
                now = self._clock.monotonic()
                if now >= next_beat or self._hastened:
                    self._hastened = False
                    next_beat = now + self.beat_once()
                self._look()
            self._stop.wait(max(0.0, min(look_every, next_beat - self._clock.monotonic())))

    def beat_once(self) -> float:
        """Renew all leases; returns seconds until the next renewal is due."""
        runs = self._runs.snapshot()
        call = running.beat(self._seat, self._describe(), [run.key for run in runs])
        try:
            beat = self._link.run(call)
            server = self._identity.ask()
        except StoreError as error:
            self.trust.lost()
            return max(0.01, min(self._outage.failed("heartbeat", error), self._seat.lease / 6))
        self._outage.succeeded("heartbeat")
        self.trust.beat(self._clock.monotonic(), beat.now, server)
        for job_id, fence, reason in beat.lost:
            self._call(self._on_lost, job_id, fence, reason)
        return self._seat.lease / 3

    def _look(self) -> None:
        try:
            self._watch.look()
        except RuntimeError:
            self._stop.set()  # the loop is closed: nobody is left to renew for

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self._stop.set()  # the loop is closed: nobody is left to renew for
