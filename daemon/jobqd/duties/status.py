"""What the daemon says of itself: to systemd's status line, and in Redis to whoever looks at the queue."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from jobqd import __version__
from jobqd.clock import Clock
from jobqd.duties.outage import Outage
from jobqd.duties.report import Reporter
from jobqd.store.call import Argument
from jobqd.systemd import Notifier

EVERY = 5.0


@dataclass(slots=True)
class Presence:
    """The facts about this daemon that others may read. Read from the heartbeat's thread, written on the loop."""

    instance: str
    concurrency: int
    types: tuple[str, ...]
    started_at: float
    """Unix seconds by this machine's clock: for people only."""
    running: int = 0
    status: str = "running"

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


class StatusLine:
    """One pass tells systemd how things are, and the log how many lines were left out lately."""

    def __init__(
        self, presence: Presence, outage: Outage, notifier: Notifier, reporter: Reporter, clock: Clock, *,
        polling: Callable[[], str | None],
    ) -> None:  # fmt: skip
        self._presence = presence
        self._outage = outage
        self._notifier = notifier
        self._reporter = reporter
        self._clock = clock
        self._polling = polling

    async def run_once(self) -> float:
        """Tell; returns the seconds until the next pass."""
        self._reporter.tick()
        presence, away = self._presence, self._outage.away_since
        redis = "" if away is None else f", Redis away for {self._clock.monotonic() - away:.0f} s"
        if self._polling() is not None:
            redis += ", polling: Redis refuses CLIENT TRACKING"
        self._notifier.status(f"{presence.concurrency} workers, {presence.running} running{redis}")
        return EVERY
