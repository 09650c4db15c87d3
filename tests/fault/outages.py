"""What daemons say of an outage of Redis, held against it: a line when it begins, and one with its length after it."""

from __future__ import annotations

import time

from tests.fault.load import LOAD
from tests.support.daemon import Daemon
from tests.support.waiting import eventually

TIMEOUTS = 11.0
"""Seconds until a daemon tells of a Redis that is silent: two calls in a row, of five seconds each, got no answer."""
_LONGEST_PAUSE = 5.0
"""A part that Redis did not serve tries again after as many seconds at most."""


class Outages:
    """The outages of one scenario, and the least and the most that daemons may have measured of all of them."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ended = 0.0
        self._least = self._most = 0.0

    def begin(self) -> None:
        """Redis goes away now."""
        self._began = time.monotonic()

    def end(self) -> None:
        """It is back now."""
        self._ended = time.monotonic()

    def over(self, noticed: float) -> None:
        """It serves the daemons again; they told of it after `noticed` seconds at the latest."""
        if self._began is None:
            return
        self._least += max(0.0, self._ended - self._began - noticed)
        self._most += time.monotonic() - self._began + _LONGEST_PAUSE + LOAD
        self._began = None

    def judge(self, daemon: Daemon) -> None:
        """Ask a daemon that lives for its lines: each outage that it told of is over, and was as long as it says."""
        if daemon.ended:
            return
        try:
            eventually(lambda: daemon.ended or _over(daemon), "redis.back", _LONGEST_PAUSE + 5 * LOAD)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{daemon.of('redis.away')[-5:]}\n{daemon.of('redis.back')[-3:]}") from None
        away = sum(record["away"] for record in daemon.of("redis.back"))
        if self._most and not daemon.ended:
            limits = f"{self._least:.1f} to {self._most:.1f} s"
            assert self._least <= away <= self._most, f"Redis was away for {limits}, the log says {away:.1f} s"


def _over(daemon: Daemon) -> bool:
    """Whether the last that a daemon said of Redis is that it is back."""
    said = [record["event"] for record in list(daemon.records)]
    lines = [event for event in said if event in ("redis.away", "redis.back")]
    return not lines or lines[-1] == "redis.back"
