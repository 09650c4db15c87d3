"""Checkpoints: what a run saves for the next one, written until Redis has it or the run has ended."""

from __future__ import annotations

from itertools import count

from jobqd.clock import Clock
from jobqd.errors import LeaseLost, StoreError
from jobqd.keys import Seat
from jobqd.runs import Run
from jobqd.store import Link, running


class CheckpointWriter:
    """Saves checkpoints one by one; each call waits for its own."""

    def __init__(self, link: Link, seat: Seat, clock: Clock) -> None:
        self._link = link
        self._seat = seat
        self._clock = clock
        self._numbers = count(1)

    async def save(self, run: Run, text: str) -> None:
        """Store a JSON text. Raises LeaseLost if the job is not this run's any more, StoreError once it has ended."""
        claimed = run.claimed
        call = running.checkpoint(self._seat, claimed.id, claimed.fence, text, next(self._numbers))
        delay = 0.05
        while True:
            try:
                saved = await self._link.run(call)
                break
            except StoreError as error:
                if not error.transient or run.ending is not None:
                    raise
                await self._clock.sleep(delay)
                delay = min(2.0, delay * 2)
        if not saved:
            raise LeaseLost(f"this run (fence {claimed.fence}) no longer owns job {claimed.id}")
