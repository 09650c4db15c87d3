"""Recovering: jobs whose lease ran out, or whose daemon is known to be dead, go back to be run."""

from __future__ import annotations

from collections.abc import Callable

from jobqd.clock import World
from jobqd.errors import StoreError
from jobqd.job import Claimed
from jobqd.keys import Keys
from jobqd.policy import Policies
from jobqd.retry import Settlement, decide
from jobqd.runs import Lapsed
from jobqd.store import Ledger, Link, running
from jobqd.store.call import mapping

_LIMIT = 200
OnDead = Callable[[Claimed, Settlement], None]
MaySweep = Callable[[], bool]
"""Whether this daemon's own renewals were good for long enough to judge the leases of others."""


class Recoverer:
    """Sweeps lapsed leases, and takes back the jobs of a dead predecessor."""

    def __init__(
        self, link: Link, keys: Keys, ledger: Ledger, policies: Policies, world: World, *,
        may_sweep: MaySweep, on_dead: OnDead, every: float = 1.0,
    ) -> None:  # fmt: skip
        self._link = link
        self._keys = keys
        self._ledger = ledger
        self._policies = policies
        self._log = world.log
        self._random = world.random
        self._may_sweep = may_sweep
        self._on_dead = on_dead
        self._every = every

    async def run_once(self) -> float:
        """Recover what lapsed; returns seconds until the next pass. Raises StoreError."""
        if not self._may_sweep():
            return self._every
        found = await self._link.run(running.lapsed(self._keys, limit=_LIMIT))
        if not self._may_sweep():
            # Redis may have hung before it answered: then its list is one of leases that nobody could renew.
            return self._every
        await self._settle(found.lapses, "lapse", "its lease ran out")
        return 0.0 if len(found.lapses) >= _LIMIT else self._every

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

    async def _settle(self, lapses: list[running.Lapse], guard: str, reason: str) -> int:
        orders = [self._order(lapse, guard, reason) for lapse in lapses]
        if not orders:
            return 0
        answers = await self._ledger.settle(orders)
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
