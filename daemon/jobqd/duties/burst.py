"""`--burst`: stop the daemon as soon as nothing is left that it could still do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jobqd.keys import Keys
from jobqd.store import Link
from jobqd.store.call import Argument

_EVERY = 0.1


class Burst:
    """One pass looks whether nothing is ready, active, or due within `horizon` seconds, and if so calls `on_done`."""

    def __init__(
        self, link: Link, keys: Keys, types: Sequence[str], *,
        horizon: float, busy: Callable[[], bool], on_done: Callable[[], None],
    ) -> None:  # fmt: skip
        self._link = link
        self._keys = keys
        self._types = types
        self._horizon = horizon
        self._busy = busy
        self._on_done = on_done

    async def run_once(self) -> float:
        """Look; returns the seconds until the next pass. Raises StoreError."""
        if not self._busy() and not await self._outstanding():
            self._on_done()
        return _EVERY

    async def _outstanding(self) -> bool:
        """Whether this daemon has work left. Jobs held for a type that has no handler here do not count."""
        seconds, _ = await self._link.command("TIME")
        keys = self._keys
        commands: list[list[Argument]] = [
            ["ZCARD", keys.ready],
            ["ZCARD", keys.active],
            ["ZCOUNT", keys.scheduled, "-inf", int(seconds) + self._horizon],
            ["ZCARD", keys.held_for("missing")],
            ["ZCARD", keys.held_for("suspect")],
        ]
        commands += [["ZCARD", keys.held_for(f"type:{name}")] for name in self._types]
        counts: list[Any] = await self._link.pipeline(commands)
        return any(counts)
