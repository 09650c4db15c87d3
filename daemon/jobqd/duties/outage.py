"""How the daemon meets a Redis that does not answer: patient, with few log lines, and one when it is over."""

from __future__ import annotations

import threading

from jobqd.clock import World
from jobqd.errors import StoreError, StoreFault
from jobqd.store.faults import REACTIONS

_REMIND_EVERY = 60.0
VITAL = frozenset({"start", "claim", "settle", "heartbeat"})
"""The parts without which no job runs. Where another one alone is not served, as a narrow ACL may do, jobs do run."""


class Outage:
    """The failures in a row of each part that talks to Redis. Thread-safe: the heartbeat reports here too."""

    def __init__(self, world: World) -> None:
        self._log = world.log
        self._clock = world.clock
        self._random = world.random
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self._since: float | None = None
        self._away_since: float | None = None
        self.count = 0
        """How many times Redis has gone away so far."""
        self._reminded = 0.0
        self._told: set[StoreFault] = set()

    @property
    def away_since(self) -> float | None:
        """Monotonic time since when Redis has not served a vital part of the daemon; None while it does."""
        return self._away_since

    @property
    def troubles(self) -> list[str]:
        """What other parts are not served, and why."""
        with self._lock:
            return [f"{part}: {meaning}" for part, meaning in sorted(self._troubles.items()) if part not in VITAL]

    def failed(self, part: str, error: StoreError) -> float:
        """Take note of a failure; returns the seconds to wait before the next try.

        A dropped connection is nothing to speak of: its first failure is tried again at once.
        """
        reaction = REACTIONS[error.fault]
        with self._lock:
            failures = self._failures[part] = self._failures.get(part, 0) + 1
            if failures > 1:
                self._troubles[part] = reaction.meaning
                if part in VITAL and self._away_since is None:
                    self._away_since = self._clock.monotonic()
                    self.count += 1
                self._tell(part, error)
        if failures == 1 and reaction.at_once:
            return 0.0
        ceiling = min(reaction.longest_pause, reaction.first_pause * 2.0 ** min(failures - 1, 20))
        return ceiling / 2 + self._random() * ceiling / 2

    def succeeded(self, part: str) -> None:
        """Take note that Redis serves this part."""
        if part not in self._failures:
            return
        with self._lock:
            self._failures.pop(part, None)
            self._troubles.pop(part, None)
            if self._failures.keys().isdisjoint(VITAL):
                self._away_since = None
            if self._since is not None and not self._failures:
                seconds, self._since = self._clock.monotonic() - self._since, None
                self._told.clear()
                self._log.info("redis.back", away=seconds)

    def _tell(self, part: str, error: StoreError) -> None:
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        elif error.fault in self._told and now - self._reminded < _REMIND_EVERY:
            return
        self._reminded = now
        self._told.add(error.fault)
        self._log.warning(
            "redis.away", problem=REACTIONS[error.fault].meaning, error=str(error), part=part, fault=str(error.fault),
        )  # fmt: skip
