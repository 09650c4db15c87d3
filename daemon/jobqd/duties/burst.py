"""`--burst`: whether anything is left that this daemon could still do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqd.keys import Keys
from jobqd.store import Link
from jobqd.store.call import Argument


class Burst:
    """Looks whether nothing is ready, active, or due within `horizon` seconds."""

    def __init__(self, link: Link, keys: Keys, types: Sequence[str], horizon: float) -> None:
        self._link = link
        self._keys = keys
        self._types = types
        self._horizon = horizon

    async def done(self) -> bool:
        """Whether the daemon may stop. Jobs held for a type that has no handler here do not count."""
        seconds, _ = await self._link.command("TIME")
        keys = self._keys
        commands: list[list[Argument]] = [
            ["ZCARD", keys.ready],
            ["ZCARD", keys.active],
            ["ZCOUNT", keys.scheduled, "-inf", int(seconds) + self._horizon],
            ["ZCARD", keys.held_for("missing")],
        ]
        commands += [["ZCARD", keys.held_for(f"type:{name}")] for name in self._types]
        counts: list[Any] = await self._link.pipeline(commands)
        return not any(counts)
