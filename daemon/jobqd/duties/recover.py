"""Recovering: jobs whose lease ran out, or whose daemon is known to be dead, go back to be run."""

from __future__ import annotations

import math
from collections.abc import Callable

from jobqd.clock import World
from jobqd.duties.trust import Trust
from jobqd.errors import StoreError
from jobqd.job import Claimed
from jobqd.keys import Keys
from jobqd.policy import Policies
from jobqd.retry import Settlement, decide
from jobqd.runs import Lapsed
from jobqd.store import Identity, Ledger, Link, running
from jobqd.store.call import mapping

_LIMIT = 200
_DOUBTFUL_LEASES = 2
OnDead = Callable[[Claimed, Settlement], None]


class Recoverer:
    """Sweeps lapsed leases, and takes back the jobs of a dead predecessor."""

    def __init__(
        self, link: Link, keys: Keys, ledger: Ledger, policies: Policies, world: World, *,
        trust: Trust, on_dead: OnDead, every: float = 1.0,
    ) -> None:  # fmt: skip
        self._link = link
        self._identity = Identity(link)
        self._keys = keys
        self._ledger = ledger
        self._policies = policies
        self._log = world.log
        self._random = world.random
        self._clock = world.clock
        self._trust = trust
        self._on_dead = on_dead
        self._every = every
        self._doubts_since: float | None = None
        self._doubts_told = False

    async def run_once(self) -> float:
        """Recover what lapsed; returns seconds until the next pass. Raises StoreError."""
        found = await self._lapsed()
        if found is None:
            return self._every
        await self._settle(found.lapses, "lapse", "its lease ran out", found.now)
        return 0.0 if len(found.lapses) >= _LIMIT else self._every

    async def _lapsed(self) -> running.Lapses | None:
        """Return leases that ran out; None if the answer cannot be believed, or this daemon may not judge."""
        if not self._trust.earned(self._clock.monotonic()):
            self._weigh(None)
            return None
        server, generation = await self._identity.ask(), self._link.generation
        asked = self._clock.monotonic()
        found = await self._link.run(running.lapsed(self._keys, limit=_LIMIT))
        answered = self._clock.monotonic()
        # Redis may have hung before it answered, so that nobody could renew; its clock may have jumped; and this link
        # may be the first to have followed a fail-over, to a Redis that never heard of the last renewals.
        doubt = self._trust.doubt(asked, answered, found.now, server)
        self._weigh(doubt)
        same = generation == self._link.generation and doubt is None
        return found if same and self._trust.earned(answered) else None

    def _weigh(self, doubt: str | None) -> None:
        """Say once that nothing is recovered, if doubts last although every renewal succeeds."""
        now = self._clock.monotonic()
        if doubt is None:
            self._doubts_since, self._doubts_told = None, False
        elif self._doubts_since is None:
            self._doubts_since = now
        elif now - self._doubts_since > _DOUBTFUL_LEASES * self._trust.lease and not self._doubts_told:
            self._doubts_told = True
            self._log.error("recover.doubts", reason=doubt)

    async def take_back(self, dead_worker: str) -> int:
        """Take back every job that a dead worker held; returns how many. Raises StoreError."""
        taken, cursor = 0, "0"
        while True:
            call = running.lapsed(self._keys, dead_worker=dead_worker, cursor=cursor, limit=_LIMIT)
            found = await self._link.run(call)
            taken += await self._settle(found.lapses, "dead", "its daemon died")
            cursor = found.cursor
            if cursor == "0":
                return taken

    async def _settle(self, lapses: list[running.Lapse], guard: str, reason: str, as_of: float = math.inf) -> int:
        orders = [self._order(lapse, guard, reason) for lapse in lapses]
        if not orders:
            return 0
        answers = await self._ledger.settle(orders, as_of)
        recovered = 0
        for lapse, order, answer in zip(lapses, orders, answers, strict=True):
            if answer == "ok":
                recovered += 1
                self._tell(lapse, order, reason)
                if order.to == "dead":
                    self._on_dead(await self._whole(lapse.job), order)
        return recovered

    async def _whole(self, job: Claimed) -> Claimed:
        """Return the job with all its fields, if Redis still gives them: the sweep reads only those that decide."""
        try:
            flat = await self._link.command("HGETALL", self._keys.job(job.id))
        except StoreError:
            return job
        return Claimed(job.id, job.fence, job.score, job.claimed_at, mapping(flat))

    def _order(self, lapse: running.Lapse, guard: str, reason: str) -> Settlement:
        policy = self._policies.of(lapse.job)
        return decide(lapse.job, lapse.worker, Lapsed(reason), policy, self._random, guard)

    def _tell(self, lapse: running.Lapse, order: Settlement, reason: str) -> None:
        event = "job.dead" if order.to == "dead" else "job.recovered"
        self._log.warning(
            event, job_id=lapse.job.id, job_type=lapse.job.type, fence=lapse.job.fence, crashes=lapse.job.crashes + 1,
            reason=reason, error=order.error or None, delay=order.delay or None,
        )  # fmt: skip
