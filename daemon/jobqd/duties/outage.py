"""How the daemon meets a Redis that does not answer: patient, with few log lines, and one when it is over."""

from __future__ import annotations

import threading

from jobqd.clock import World
from jobqd.errors import StoreError, StoreFault

_FIRST_DELAY, _MAX_DELAY = 0.05, 2.0
_REMIND_EVERY = 60.0
_SENTENCES = {
    StoreFault.DOWN: "Redis does not answer",
    StoreFault.BUSY: "Redis is busy with a script or a fail-over",
    StoreFault.READONLY: "this Redis is not the master",
    StoreFault.FULL: "Redis is at its memory limit",
    StoreFault.DISK: "Redis refuses writes: it cannot persist, or has too few replicas",
    StoreFault.DENIED: "Redis refuses us: check the password and the ACL",
    StoreFault.WRONGTYPE: "a key of the queue holds something else: check key_prefix and queue",
    StoreFault.OTHER: "Redis answered with an error that jobqd does not know",
}


class Outage:
    """The failures in a row of each part that talks to Redis. Thread-safe: the heartbeat reports here too."""

    def __init__(self, world: World) -> None:
        self._log = world.log
        self._clock = world.clock
        self._random = world.random
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._since: float | None = None
        self._reminded = 0.0

    @property
    def away_since(self) -> float | None:
        """Monotonic time since when Redis has not served some part of the daemon; None while all is well."""
        return self._since

    def failed(self, part: str, error: StoreError) -> float:
        """Take note of a failure; returns the seconds to wait before the next try.

        The first failure is tried again at once, since a dropped connection is nothing to speak of.
        """
        with self._lock:
            failures = self._failures[part] = self._failures.get(part, 0) + 1
            if failures > 1:
                self._tell(part, error)
        if failures == 1 and error.transient:
            return 0.0
        ceiling = min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(failures - 1, 20))
        return ceiling / 2 + self._random() * ceiling / 2

    def succeeded(self, part: str) -> None:
        """Take note that Redis serves this part."""
        if part not in self._failures:
            return
        with self._lock:
            self._failures.pop(part, None)
            if self._since is not None and not self._failures:
                seconds, self._since = self._clock.monotonic() - self._since, None
                self._log.info("redis.back", away=seconds)

    def _tell(self, part: str, error: StoreError) -> None:
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._reminded < _REMIND_EVERY:
            return
        self._reminded = now
        self._log.warning(
            "redis.away", problem=_SENTENCES[error.fault], error=str(error), part=part, fault=str(error.fault),
        )  # fmt: skip
