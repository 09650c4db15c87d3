"""Promoting: jobs that are due move from the scheduled set into the ready set."""

from __future__ import annotations

from typing import Any

from jobqd.keys import Keys
from jobqd.store import Link, running

_LIMIT = 200
_MANY_SETTLED = 100
"""So many ids that no longer wait for their hash make it likely that there are more."""


class Promoter:
    """One pass moves what is due and tells when to come again."""

    def __init__(self, link: Link, keys: Keys, log: Any, *, every: float = 1.0) -> None:
        self._link = link
        self._keys = keys
        self._log = log
        self._every = every

    async def run_once(self) -> float:
        """Promote; returns seconds until the next pass is worth making. Raises StoreError."""
        promotion = await self._link.run(running.promote(self._keys, limit=_LIMIT))
        for job_id, reason in promotion.dropped:
            self._log.warning("job.dropped", job_id=job_id, reason=reason)
        for what in ("milliseconds", "never"):
            # One line for all of them: a broken producer may cause any number.
            ids = [job_id for job_id, found in promotion.corrected if found == what]
            if ids:
                self._log.warning(f"schedule.{what}", count=len(ids), first=ids[0])
        if promotion.moved >= _LIMIT or promotion.settled >= _MANY_SETTLED:
            return 0.0
        return self._every if promotion.next_due is None else min(self._every, promotion.next_due)
