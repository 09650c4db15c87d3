"""Memory: close to the limit of Redis completed jobs are kept for minutes only, and a Redis that evicts is told of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jobqd.duties.startup import Finding, judge_eviction
from jobqd.errors import StoreError, StoreFault
from jobqd.store import Ledger, Link

TIGHT, RELAXED = 0.90, 0.80
"""Shares of `maxmemory`: short of memory from the first on, until use is back below the second."""
SHORT_TTL = 300.0
"""Seconds for which a job that completes meanwhile is kept: its result is for whoever waits for it now."""
EVERY, SELDOM = 10.0, 600.0


class MemoryWatch:
    """One pass compares used memory with the limit, and judges the eviction policy anew: both can be set at run time.

    It never deletes anything, and looks seldom where it cannot.
    """

    def __init__(self, link: Link, ledger: Ledger, log: Any, *, allow_eviction: bool = False) -> None:
        self._link = link
        self._ledger = ledger
        self._log = log
        self._allow_eviction = allow_eviction
        self._tight = False
        self._found: Finding | None = None
        """What the last pass found of the eviction policy; the start of the daemon told what the first one finds."""

    async def run_once(self) -> float:
        """Look; returns the seconds until the next pass. Raises StoreError."""
        try:
            text = str(await self._link.command("INFO", "memory"))
        except StoreError as error:
            if error.fault not in (StoreFault.DENIED, StoreFault.OTHER):
                raise
            # A hosted server or an ACL refuses INFO: nothing can be told from here.
            self._judge(0, 0)
            return SELDOM
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        self._judge_eviction(info)
        self._judge(_number(info, "used_memory"), _number(info, "maxmemory"))
        return EVERY

    def _judge_eviction(self, info: Mapping[str, str]) -> None:
        """Tell each change of the verdict once. A daemon that runs goes on: its own end would save no job."""
        before, found = self._found, judge_eviction(info, allowed=self._allow_eviction)
        self._found = found
        if before is not None and before.ok is found.ok:
            return
        if found.ok is False:
            self._log.critical("redis.evicts", problem=found.message)
        elif before is None:
            return
        elif found.ok is None:
            self._log.warning("redis.warning", subject=found.subject, problem=found.message)
        else:
            self._log.info("redis.evicts_no_more", problem=found.message)

    def _judge(self, used: int, limit: int) -> None:
        share = used / limit if limit > 0 else 0.0
        if self._tight and share < RELAXED:
            self._tight = False
            self._ledger.completed_ttl_max = math.inf
            self._log.info("redis.memory_relaxed", size=used, limit_bytes=limit)
        elif not self._tight and share >= TIGHT:
            self._tight = True
            self._ledger.completed_ttl_max = SHORT_TTL
            self._log.warning("redis.memory_tight", size=used, limit_bytes=limit, interval=SHORT_TTL)


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "").strip()
    return int(text) if text.isdecimal() else 0
