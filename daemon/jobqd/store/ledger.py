"""Where settlements go, whoever makes them: the owner of a run, or who recovers one that nobody owns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from jobqd.keys import Keys
from jobqd.retry import Settlement
from jobqd.store.call import Call
from jobqd.store.link import Link
from jobqd.store.running import settle


class Ledger:
    """Settles on one connection; keeps at most `dead_max` dead letters, and what it trims for `trimmed_ttl` seconds."""

    def __init__(self, link: Link, keys: Keys, *, dead_max: int, trimmed_ttl: float) -> None:
        self._link = link
        self._keys = keys
        self.dead_max = dead_max
        self.trimmed_ttl = trimmed_ttl
        self.completed_ttl_max = math.inf
        """Most seconds for which a job that completes now is kept: lowered while Redis is short of memory."""

    async def settle(self, orders: Sequence[Settlement], as_of: float = math.inf) -> list[str]:
        """Carry out settlements; one answer each, as `jobqd.store.running.settle` tells. Raises StoreError."""
        return await self._link.run(self.call(orders, as_of))

    def call(self, orders: Sequence[Settlement], as_of: float = math.inf) -> Call[list[str]]:
        """Return the call that carries out settlements, for a link of another thread."""
        orders = [self._limited(order) for order in orders]
        return settle(self._keys, orders, dead_max=self.dead_max, trimmed_ttl=self.trimmed_ttl, as_of=as_of)

    def _limited(self, order: Settlement) -> Settlement:
        if order.to != "completed" or order.ttl <= self.completed_ttl_max:
            return order
        return replace(order, ttl=self.completed_ttl_max)
