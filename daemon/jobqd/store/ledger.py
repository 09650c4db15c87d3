"""Where settlements go, whoever makes them: the owner of a run, or who recovers one that nobody owns."""

from __future__ import annotations

from collections.abc import Sequence

from jobqd.keys import Keys
from jobqd.retry import Settlement
from jobqd.store.link import Link
from jobqd.store.running import settle


class Ledger:
    """Settles on one connection; keeps at most `dead_max` dead letters, and what it trims for `trimmed_ttl` seconds."""

    def __init__(self, link: Link, keys: Keys, *, dead_max: int, trimmed_ttl: float) -> None:
        self._link = link
        self._keys = keys
        self._dead_max = dead_max
        self._trimmed_ttl = trimmed_ttl

    async def settle(self, orders: Sequence[Settlement]) -> list[str]:
        """Carry out settlements; one answer each, as `jobqd.store.running.settle` tells. Raises StoreError."""
        call = settle(self._keys, orders, dead_max=self._dead_max, trimmed_ttl=self._trimmed_ttl)
        return await self._link.run(call)
