"""Surrender: the event loop is blocked for good, so another thread hands everything over and ends the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobqd.clock import World
from jobqd.errors import StoreError
from jobqd.guardian import Guardian
from jobqd.retry import Settlement, decide
from jobqd.runs import Interrupted, Lapsed, Run, Runs
from jobqd.store import Ledger, SyncLink

_BATCH = 250

Owed = Callable[[], Sequence[tuple[Run, Settlement]]]
"""Gives the outcomes that Redis does not know yet."""


class Surrender:
    """Counts a crash for the job that blocks, hands the others back uncharged, and ends the process.

    Where it is not known which job blocks, each that may gets a crash: that convicts nobody, but leads to processes of
    their own. What had ended already is settled as it ended. If Redis does not take it, the next daemon takes the
    jobs back.
    """

    def __init__(
        self, link: SyncLink, ledger: Ledger, worker: str, runs: Runs, world: World, *,
        guardian: Guardian, owed: Owed,
    ) -> None:  # fmt: skip
        self._link = link
        self._ledger = ledger
        self._worker = worker
        self._runs = runs
        self._world = world
        self._guardian = guardian
        self._owed = owed

    def __call__(self, blocker: Run | None, reason: str) -> None:
        """Hand everything over and end the process; `blocker` is None if it is not known who blocks."""
        self._end_programs()
        orders = self.orders(blocker, reason)
        problem = None
        try:
            for first in range(0, len(orders), _BATCH):
                self._link.run(self._ledger.call(orders[first : first + _BATCH]))
        except StoreError as error:
            problem = str(error)
        self._world.log.critical(
            "loop.gave_up", reason=reason, count=len(orders), error=problem,
            job_id=None if blocker is None else blocker.claimed.id,
            job_type=None if blocker is None else blocker.claimed.type,
        )  # fmt: skip
        self._world.end()

    def orders(self, blocker: Run | None, reason: str) -> list[Settlement]:
        """Return what is to be settled: outcomes not yet recorded, a crash for the blocker, the others handed back."""
        owed = dict(self._owed())
        orders = list(owed.values())
        for run in self._runs.snapshot():
            if run not in owed:
                blocks = run is blocker or (blocker is None and _may_block(run))
                outcome = Lapsed(reason) if blocks else Interrupted("the event loop of its daemon was blocked")
                orders.append(decide(run.claimed, self._worker, outcome, run.policy, self._world.random))
        return orders

    def _end_programs(self) -> None:
        """Whoever gets a job that is handed back must not meet its programs."""
        for run in self._runs.snapshot():
            if run.child is not None:
                run.child.kill_all()
        self._guardian.kill_all()


def _may_block(run: Run) -> bool:
    """Whether a run has code on the event loop, and is not in a thread or a process of its own."""
    return run.performing and run.thread is None and run.child is None
