"""The queue's figures as Redis has them, read when somebody asks and kept for a moment."""

from __future__ import annotations

import threading

from jobqd.client.procedure import run_sync
from jobqd.clock import Clock
from jobqd.errors import StoreError
from jobqd.keys import Keys
from jobqd.store import SyncLink
from jobqd.store.counting import Stats, stats

FRESH_FOR = 2.0
"""Seconds for which a reading is given again: whoever asks more often does not load Redis more."""


class QueueReader:
    """Reads over a connection of its own, so that it answers while the event loop is blocked. For any thread."""

    def __init__(self, link: SyncLink, keys: Keys, clock: Clock) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._stats: Stats | None = None

    def read(self) -> Stats | None:
        """Return the queue as it was at most two seconds ago, None if Redis did not answer then."""
        with self._lock:
            if self._read_at is None or self._clock.monotonic() - self._read_at >= FRESH_FOR:
                try:
                    self._stats = run_sync(stats(self._keys), self._link)
                except StoreError:
                    self._stats = None
                # A Redis that hangs is not asked again at once: those who waited for this reading share its failure.
                self._read_at = self._clock.monotonic()
            return self._stats
