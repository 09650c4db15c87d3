"""Settling: outcomes of runs become settlements in Redis, in batches that form while the last one is under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jobqd.clock import World
from jobqd.duties.outage import Outage
from jobqd.errors import StoreError, StoreFault
from jobqd.retry import Settlement, decide
from jobqd.runs import Outcome, Run, Runs
from jobqd.store import Ledger

BATCH_MAX = 250
BATCH_BYTES = 4 * 2**20
REFUSALS = 8
"""So often in a row, with growing pauses, an outcome alone is refused before it is given up."""


@dataclass(slots=True)
class Pending:
    """An outcome that Redis does not know yet."""

    run: Run
    outcome: Outcome
    order: Settlement


Settled = Callable[[Pending, str], None]
"""Told of each answer: ok, already, cancelled, stale, renewed, gone, or "error: …" for one that was given up."""


class Settler:
    """Takes outcomes from workers and records them. While Redis is away they wait here, in order."""

    def __init__(
        self, ledger: Ledger, worker: str, runs: Runs, outage: Outage, world: World, *, on_settled: Settled
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._runs = runs
        self._outage = outage
        self._random = world.random
        self._on_settled = on_settled
        self._waiting: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._alone = 0
        self._refusals = 0
        self.stuck = False
        """True from a failed settle to the next one that succeeds: no new claims meanwhile."""

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, run: Run, outcome: Outcome) -> None:
        """Take the outcome of a run; the run keeps its lease until Redis has it."""
        order = decide(run.claimed, self._worker, outcome, run.policy, self._random)
        self._waiting.append(Pending(run, outcome, order))
        self._idle.clear()
        self._wake.set()

    async def wait(self) -> None:
        """Return when there is something to settle."""
        await self._wake.wait()

    async def wait_idle(self) -> None:
        """Return when everything submitted so far is in Redis."""
        await self._idle.wait()

    async def run_once(self) -> float:
        """Settle one batch; returns seconds to wait before the next. A batch that fails stays, to be sent again."""
        batch = self._batch()
        if not batch:
            self._wake.clear()
            return 0.0
        try:
            answers = await self._ledger.settle([pending.order for pending in batch])
        except StoreError as error:
            self.stuck = True
            if error.fault is StoreFault.OTHER:
                self._set_apart(batch, error)
            return self._outage.failed("settle", error)
        self.stuck = False
        self._refusals, self._alone = 0, max(0, self._alone - len(batch))
        self._outage.succeeded("settle")
        for pending, answer in zip(batch, answers, strict=True):
            # A stop may have given up on this batch while its answer was under way.
            if self._waiting and self._waiting[0] is pending:
                self._leave(pending, answer)
        return 0.0

    def _batch(self) -> list[Pending]:
        """Return the first of those that wait: bounded by number, and by bytes, or a reply might not come in time."""
        most, size = 1 if self._alone else BATCH_MAX, 0
        batch: list[Pending] = []
        for pending in islice(self._waiting, most):
            size += len(pending.order.result) + len(pending.order.traceback)
            if batch and size > BATCH_BYTES:
                break
            batch.append(pending)
        return batch

    def _set_apart(self, batch: list[Pending], error: StoreError) -> None:
        """Meet an error that waiting may not cure: one outcome must not hold up the others for ever.

        Those that failed together are sent one by one. One that Redis refuses alone again and again is given up: its
        lease will run out.
        """
        self._alone = max(self._alone, len(batch))
        if len(batch) > 1:
            self._refusals = 0
            return
        self._refusals += 1
        if self._refusals >= REFUSALS:
            self._refusals = 0
            self._alone -= 1
            self._leave(batch[0], f"error: {error}")

    def _leave(self, pending: Pending, answer: str) -> None:
        """Take the first of those that wait out of their row."""
        self._waiting.popleft()
        self._runs.remove(pending.run)
        self._on_settled(pending, answer)
        if not self._waiting:
            self._rest()

    def _rest(self) -> None:
        self._alone = 0
        self.stuck = False
        self._wake.clear()
        self._idle.set()

    def owed(self) -> list[tuple[Run, Settlement]]:
        """Return what Redis does not know yet; for another thread, while the loop stands still."""
        return [(pending.run, pending.order) for pending in self._waiting]

    def abandon(self, report: Callable[[Pending], Any]) -> None:
        """Give up on what Redis could not take before the stop, reported one by one."""
        while self._waiting:
            report(self._waiting.popleft())
        self._rest()
