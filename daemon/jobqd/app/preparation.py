"""Before the first job: Redis is reached and judged, and the jobs of a dead predecessor are taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobqd.app.parts import Parts
from jobqd.clock import World
from jobqd.duties import startup
from jobqd.errors import ConfigError, StartError, StoreError
from jobqd.guardian.watch import GRACE
from jobqd.keys import Seat
from jobqd.lockfile import InstanceLock, ProgramsLock
from jobqd.systemd import Notifier

T = TypeVar("T")

READY_WITHOUT_REDIS = 10.0
"""Seconds for which Redis is tried before the daemon says READY all the same."""
PROGRAMS_PATIENCE = 2 * GRACE + 2.0
"""Seconds for which a predecessor's programs are waited for. Guardians kill them before: that of a child process that
hangs begins only when the daemon's has killed the child."""
_LOOK_AGAIN = 1.0
_LOOK_SOON = 0.02


class Preparation:
    """What a daemon does once, as often as it needs for want of Redis. Cut short at any moment, it has lost nothing."""

    def __init__(
        self, parts: Parts, seat: Seat, lock: InstanceLock, programs: ProgramsLock, notifier: Notifier, world: World
    ) -> None:
        self._parts = parts
        self._seat = seat
        self._lock = lock
        self._programs = programs
        self._notifier = notifier
        self._clock = world.clock
        self._log = world.log
        self._reached = False

    async def run(self) -> bool:
        """Prepare; returns true. Raises ConfigError for a Redis that must not be used, and StartError."""
        waiting = asyncio.ensure_future(self._ready_without_redis())
        try:
            await self._reach_redis()
            await self._take_back()
        finally:
            waiting.cancel()
        return True

    async def _ready_without_redis(self) -> None:
        """Say READY although Redis is away: whatever starts the unit must not hang for want of it."""
        await self._clock.sleep(READY_WITHOUT_REDIS)
        while self._reached and self._parts.outage.away_since is None:
            await self._clock.sleep(_LOOK_AGAIN)
        self._notifier.ready(f"waiting for Redis at {self._parts.redis}")

    async def _reach_redis(self) -> None:
        parts = self._parts
        info = await startup.wait_for_redis(parts.link, parts.outage, self._clock)
        self._reached = True
        for finding in startup.judge(info, allow_eviction=parts.settings.allow_eviction):
            if finding.ok is False:
                raise ConfigError(finding.message)
            if finding.ok is None:
                self._log.warning("redis.warning", subject=finding.subject, problem=finding.message)
        await self._patiently(lambda: startup.claim_prefix(parts.link, self._seat.keys))

    async def _take_back(self) -> None:
        """Take the jobs of a dead predecessor back; only then is it forgotten."""
        await self._programs_gone()
        predecessor = self._lock.predecessor
        if predecessor is not None:
            taken = await self._patiently(lambda: self._parts.recoverer.take_back(predecessor))
            if taken:
                self._log.warning("daemon.took_back", count=taken, predecessor=predecessor)
        try:
            self._lock.record(self._seat.worker)
        except OSError as error:
            raise StartError(
                f"the lock file {self._lock.path} cannot be written: {error.strerror}; "
                "make room there, or set runtime_dir"
            ) from error

    async def _programs_gone(self) -> None:
        """Wait until what a predecessor started has ended: no program may run beside that of the job's next run."""
        end = self._clock.monotonic() + PROGRAMS_PATIENCE
        while not self._programs.take():
            if self._clock.monotonic() >= end:
                self._log.warning("daemon.programs_left", duration=PROGRAMS_PATIENCE)
                self._programs.replace()
                return
            await self._clock.sleep(_LOOK_SOON)

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step as often as it needs for want of Redis."""
        while True:
            try:
                result = await step()
            except StoreError as error:
                await self._clock.sleep(self._parts.outage.failed("start", error))
            else:
                self._parts.outage.succeeded("start")
                return result
