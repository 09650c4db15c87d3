"""Which Redis process is at the other end of a connection: after a fail-over or a restart it is another one."""

from __future__ import annotations

from jobqd.errors import StoreError, StoreFault
from jobqd.store.link import Link, SyncLink

UNKNOWN = "unknown"
"""Stands for a server that does not tell."""


class Identity:
    """The run_id of the server of a link, asked once a connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known, self._generation = UNKNOWN, -1

    async def ask(self) -> str:
        """Return the run_id. It is that of `link.generation` as it was before the call, or this raises StoreError."""
        while self._generation != self._link.generation:
            # Others use the link too: it may have been connected anew while the answer was under way.
            generation = self._link.generation
            try:
                info = str(await self._link.command("INFO", "server"))
            except StoreError as error:
                info = _refused(error)
            if generation == self._link.generation:
                self._known, self._generation = _run_id(info), generation
        return self._known


class SyncIdentity:
    """The same for the link of a thread, used by nobody else."""

    def __init__(self, link: SyncLink) -> None:
        self._link = link
        self._known, self._generation = UNKNOWN, -1

    def ask(self) -> str:
        """Return the run_id. Raises StoreError."""
        if self._generation != self._link.generation:
            try:
                info = str(self._link.command("INFO", "server"))
            except StoreError as error:
                info = _refused(error)
            self._known, self._generation = _run_id(info), self._link.generation
        return self._known


def _refused(error: StoreError) -> str:
    """Return what a server tells that refuses INFO; any other error is one of the connection."""
    if error.fault not in (StoreFault.DENIED, StoreFault.OTHER):
        raise error
    return ""


def _run_id(info: str) -> str:
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return lines.get("run_id", UNKNOWN)
