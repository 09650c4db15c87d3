"""What the daemon says of itself: to systemd's status line, and in Redis to whoever looks at the queue."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobqd import __version__
from jobqd.clock import Clock
from jobqd.duties.report import Reporter
from jobqd.errors import StoreError
from jobqd.keys import Keys
from jobqd.store import Link
from jobqd.store.call import Argument
from jobqd.systemd import Notifier

EVERY = 5.0


@dataclass(slots=True)
class Presence:
    """The facts about this daemon that others may read, kept by the loop; the heartbeat's thread counts and reads."""

    instance: str
    concurrency: int
    types: tuple[str, ...]
    started_at: float
    """Unix seconds by this machine's clock: for people only."""
    running: int = 0
    status: str = "running"
    """running, quiet (claims nothing until told to), or draining (stops)."""

    def fields(self) -> dict[str, Argument]:
        """Return the fields of the daemon's hash, as docs/protocol.md names them."""
        return {
            "instance": self.instance,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "started_at": f"{self.started_at:.3f}",
            "concurrency": self.concurrency,
            "running": self.running,
            "types": json.dumps(list(self.types)),
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class Work:
    """How much work a daemon has: jobs that run now, and jobs that have ended since its start."""

    running: int
    ended: int


class QueueSize:
    """Counts what waits in the queue, in two cheap commands."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def read(self) -> tuple[int, int] | None:
        """Return how many jobs are ready and how many are dead letters; None if Redis does not say."""
        try:
            ready = await self._link.command("ZCARD", self._keys.ready)
            return int(ready), int(await self._link.command("LLEN", self._keys.dead))
        except StoreError:
            return None


class StatusLine:
    """One pass tells systemd how things are, if that has changed, and the log how many lines were left out lately.

    `trouble` names what is wrong.
    """

    def __init__(
        self, size: QueueSize, presence: Presence, notifier: Notifier, reporter: Reporter, clock: Clock, *,
        work: Callable[[], Work], trouble: Callable[[], Sequence[str]],
    ) -> None:  # fmt: skip
        self._size = size
        self._presence = presence
        self._notifier = notifier
        self._reporter = reporter
        self._clock = clock
        self._work = work
        self._trouble = trouble
        self._told = ""
        self._since = clock.monotonic()
        self._ended = 0

    async def run_once(self) -> float:
        """Tell; returns the seconds until the next pass."""
        self._reporter.tick()
        text = await self._line()
        # A stop has a line of its own.
        if text != self._told and self._presence.status != "draining":
            self._told = text
            self._notifier.status(text)
        return EVERY

    async def _line(self) -> str:
        size = await self._size.read()
        work = self._work()
        facts = [f"{self._presence.concurrency} workers", f"{work.running} running"]
        if size is not None:
            facts += [f"{size[0]} ready", f"{size[1]} dead"]
        facts.append(f"{self._rate(work.ended)}/s")
        quiet = ["quiet"] if self._presence.status == "quiet" else []
        return "; ".join((", ".join(facts), *quiet, *self._trouble()))

    def _rate(self, ended: int) -> str:
        now = self._clock.monotonic()
        seconds, jobs = now - self._since, ended - self._ended
        self._since, self._ended = now, ended
        rate = jobs / seconds if seconds > 0 else 0.0
        return f"{rate:.1f}" if 0 < rate < 10 else f"{rate:.0f}"
