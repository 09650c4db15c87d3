"""The slow walk: at a fixed low rate over all job hashes, repairing what foreign or lost writes left behind."""

from __future__ import annotations

from typing import Any

from jobqd.keys import Keys
from jobqd.store import Link, running

_KEYS_A_STEP = 200


class Walker:
    """One pass is one step of SCAN; after the last it begins anew."""

    def __init__(self, link: Link, keys: Keys, log: Any, *, max_age: float, job_ttl: float, every: float = 5.0) -> None:
        self._link = link
        self._keys = keys
        self._log = log
        self.max_age = max_age
        self.job_ttl = job_ttl
        self._every = every
        self._cursor = "0"

    async def run_once(self) -> float:
        """Look at the next keys; returns seconds until the next pass. Raises StoreError."""
        step = await self._link.run(
            running.walk(self._keys, self._cursor, count=_KEYS_A_STEP, max_age=self.max_age, job_ttl=self.job_ttl)
        )
        self._cursor = step.cursor
        for job_id, what in step.reports:
            tell = self._log.info if what in ("persisted", "ttl") else self._log.warning
            tell(f"job.{what}", job_id=job_id)
        return self._every
