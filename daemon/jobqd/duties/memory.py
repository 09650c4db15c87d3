"""Memory: while Redis is close to its limit, completed jobs are kept for minutes only."""

from __future__ import annotations

import math
from typing import Any

from jobqd.errors import StoreError, StoreFault
from jobqd.store import Ledger, Link

TIGHT, RELAXED = 0.90, 0.80
"""Shares of `maxmemory`: short of memory from the first on, until use is back below the second."""
SHORT_TTL = 300.0
"""Seconds for which a job that completes meanwhile is kept: its result is for whoever waits for it now."""
EVERY, SELDOM = 10.0, 600.0


class MemoryWatch:
    """One pass compares used memory with the limit; it never deletes anything, and looks seldom where it cannot."""

    def __init__(self, link: Link, ledger: Ledger, log: Any) -> None:
        self._link = link
        self._ledger = ledger
        self._log = log
        self._tight = False

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
        self._judge(_number(info, "used_memory"), _number(info, "maxmemory"))
        return EVERY

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
