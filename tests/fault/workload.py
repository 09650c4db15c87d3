"""Jobs of every kind from producers of every kind, while things go wrong; it remembers what the checker must know."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

import redis

from jobqd import SyncQueue
from jobqd.errors import StoreError
from tests.fault.laboratory import Laboratory

KINDS = {
    "effect": 8, "flaky": 3, "reports": 2, "snoozes": 2, "marks": 2, "hopeless": 1, "program": 2, "apart": 1,
}  # fmt: skip
"""Types of jobs, and how often each comes."""
_NOT_ACKNOWLEDGED = (redis.RedisError, StoreError)


class Workload:
    """Sends jobs. Whatever was not acknowledged may run or not: its id is known to `unsure` sets all the same."""

    def __init__(self, lab: Laboratory, queue: SyncQueue, random: Random) -> None:
        self._lab, self._queue, self._random = lab, queue, random
        self.failing: set[str] = set()
        """Jobs that may fail, once or for good, by what they are."""
        self.snoozed: set[str] = set()

    def forget(self) -> None:
        """Begin a new round."""
        self.failing.clear()
        self.snoozed.clear()

    def send(self, count: int) -> None:
        """Enqueue so many jobs; some a second time under the same id, some are cancelled, whatever they do by then."""
        for _ in range(count):
            kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
            job_id = self._lab.new_id(kind)
            if kind in ("flaky", "hopeless", "marks"):
                self.failing.add(job_id)
            if kind == "snoozes":
                self.snoozed.add(job_id)
            with contextlib.suppress(*_NOT_ACKNOWLEDGED):
                self._enqueue(kind, job_id)
                self._lab.acknowledged.add(job_id)
                if kind == "effect" and self._random.random() < 0.15:
                    self._queue.job(job_id).cancel()

    def _enqueue(self, kind: str, job_id: str) -> None:
        seconds = f"{self._random.uniform(0.001, 0.6):.3f}"
        fields: dict[str, Any] = {"seconds": seconds} if kind in ("effect", "marks", "apart") else {}
        if self._random.random() < 0.5:
            self._lab.shop.producer.put(job_id, kind, **fields)
            return
        options = self._random.choice(({}, {"priority": 5}, {"delay": 0.3}, {"delay": 20}))
        self._queue.enqueue(kind, fields, id=job_id, **options)
        if self._random.random() < 0.3:
            assert not self._queue.enqueue(kind, fields, id=job_id).created
        if options.get("delay") == 20:
            # The same enqueue again, by hand: it is due now.
            self._lab.shop.producer.put(job_id, kind, **fields)
