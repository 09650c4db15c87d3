"""The claimer: one numbered claim at a time, for as many jobs as workers are idle."""

from __future__ import annotations

import asyncio
import difflib

from jobqd.clock import World
from jobqd.duties.outage import Outage
from jobqd.duties.settle import BATCH_MAX, Settler
from jobqd.errors import StoreError
from jobqd.keys import Seat
from jobqd.pool import Pool
from jobqd.pulse import Pulse
from jobqd.runs import Ending
from jobqd.store import running
from jobqd.wakeup import Wakeup

_TYPES_TOLD = 100


class Claimer:
    """Fills idle workers. Stopping is a flag: the claim under way is awaited, and what it brings is handed back."""

    def __init__(
        self, seat: Seat, pool: Pool, settler: Settler, wakeup: Wakeup, outage: Outage, world: World, *,
        max_age: float, max_crashes: int, sizes: running.Sizes,
    ) -> None:  # fmt: skip
        self._seat = seat
        self._pool = pool
        self._settler = settler
        self._wakeup = wakeup
        self._outage = outage
        self._world = world
        self._max_age = max_age
        self._max_crashes = max_crashes
        self._sizes = sizes
        self._event = asyncio.Event()
        self._stopping = False
        self._number = 0
        self._told: set[str] = set()
        self._foreign: set[str] = set()
        self._more = False
        self.unanswered = False
        """Whether the last claim may have leased jobs that nobody here knows of: its reply was lost."""
        self.quiet = False
        """While true nothing is claimed; runs under way go on. Set by `rest` and `stop`."""
        self.pulse = Pulse("claim", world.clock)

    def adopt(self, *, max_age: float, max_crashes: int, sizes: running.Sizes) -> None:
        """Take other limits for the claims to come."""
        self._max_age, self._max_crashes, self._sizes = max_age, max_crashes, sizes

    def nudge(self, more: bool = False) -> None:
        """Look again: a worker is free, the queue may have changed, or (`more`) a type has room again."""
        self._more = self._more or more
        self._event.set()

    def rest(self, quiet: bool) -> None:
        """Claim no more until told otherwise, or again; not to be called while stopping."""
        self.quiet = quiet
        self.nudge(more=True)

    def stop(self) -> None:
        """Claim no more, and end."""
        self._stopping = self.quiet = True
        self._event.set()

    @property
    def useful(self) -> bool:
        """Whether a claim would be made now."""
        return not self.quiet and self._room() > 0 and not self._settler.stuck and (self._more or self._wakeup.pending)

    async def run(self) -> None:
        """Claim until stopped; returns once no claim is outstanding."""
        while not self._stopping:
            if self.useful or (self.quiet and self.unanswered):
                with self.pulse:
                    pause = await self.run_once()
                await self._pause(pause)
            else:
                self._event.clear()
                if not self.useful and not self._stopping:
                    await self._event.wait()
        if self.unanswered:
            # The claim whose reply was lost may have leased jobs to us: ask once more for what it brought.
            with self.pulse:
                await self.run_once()

    def _room(self) -> int:
        """How many jobs may be claimed: no more than workers are idle, nor than settling keeps up with."""
        return min(self._pool.idle, max(self._pool.concurrency, BATCH_MAX) - len(self._settler), running.CLAIM_MAX)

    async def run_once(self) -> float:
        """Make one claim, or repeat the one whose reply was lost; returns seconds to wait before the next."""
        repeated = self.unanswered
        if not repeated:
            self._number += 1
        self._wakeup.pending = self._more = False
        want = max(1, self._room())
        suspects = running.Suspects(self._max_crashes - 1, self._pool.room_for_suspects)
        call = running.claim(
            self._seat, self._number, want, self._max_age, self._pool.allowances(), suspects, self._sizes
        )
        try:
            claims = await self._wakeup.link.run(call)
        except StoreError as error:
            self.unanswered = True
            self._more = True
            return self._outage.failed("claim", error)
        self.unanswered = False
        self._outage.succeeded("claim")
        self._take(claims)
        # The repeated claim tells what the first one brought, and nothing of what has become ready since.
        self._more = self._more or repeated or claims.more or len(claims.jobs) == want
        return 0.0

    def _take(self, claims: running.Claims) -> None:
        for job_id, reason in claims.dropped:
            self._world.log.warning("job.dropped", job_id=job_id, reason=reason)
        for job_type in claims.unhandled:
            self._tell_unhandled(job_type)
        for key in claims.foreign:
            self._tell_foreign(key)
        for claimed in claims.jobs:
            if self._stopping:
                self._pool.hand_back(claimed, str(Ending.STOP))
            elif self.quiet or self._pool.idle <= 0:
                self._pool.hand_back(claimed, "the daemon is quiet" if self.quiet else "no worker is free")
            else:
                self._pool.start(claimed)

    def _tell_unhandled(self, job_type: str) -> None:
        """Say once of each type that its jobs wait for a handler, and which handler was perhaps meant."""
        if job_type in self._told or len(self._told) >= _TYPES_TOLD:
            return
        self._told.add(job_type)
        near = difflib.get_close_matches(job_type, self._pool.allowances(), 1)
        self._world.log.warning("type.unhandled", type=job_type, meant=near[0] if near else None)

    def _tell_foreign(self, key: str) -> None:
        """Say once of each held set that something else stands in its place: its jobs come back again and again."""
        if key not in self._foreign and len(self._foreign) < _TYPES_TOLD:
            self._foreign.add(key)
            self._world.log.error("index.foreign", key=key)

    async def _pause(self, seconds: float) -> None:
        """Wait so long before the next claim; a stop ends the wait, other news do not: Redis is not to be hammered."""
        if seconds <= 0:
            return
        sleeping = asyncio.ensure_future(self._world.clock.sleep(seconds))
        while not sleeping.done() and not self._stopping:
            self._event.clear()
            news = asyncio.ensure_future(self._event.wait())
            await asyncio.wait((sleeping, news), return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        sleeping.cancel()
