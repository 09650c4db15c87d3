"""Trust: whether this daemon may judge the leases of others."""

from __future__ import annotations

_CLOCK_TOLERANCE = 1.0


class Trust:
    """Whether this daemon may judge the leases of others: its own were renewed for a full lease, by one steady Redis.

    Otherwise an outage longer than a lease would throw finished work away, and a fail-over or a clock that jumped
    would make every lease look lapsed.
    """

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self._since: float | None = None
        self._last = 0.0
        self._server = ""
        self._offset = 0.0

    def beat(self, monotonic: float, redis_now: float, server: str) -> None:
        """Take note of a renewal that succeeded; `server` is the run_id of that Redis."""
        offset = redis_now - monotonic
        late = self._since is not None and monotonic - self._last > self.lease
        if late or server != self._server or abs(offset - self._offset) > _CLOCK_TOLERANCE:
            self._since = None
        if self._since is None:
            self._since, self._server, self._offset = monotonic, server, offset
        self._last = monotonic

    def doubt(self, asked: float, answered: float, redis_now: float, server: str) -> str | None:
        """Return why an answer may not be of the Redis that renewals go to, or not of its clock; None if it is.

        The next renewal would notice as much, but only seconds later: a sweep comes in between. `asked` and `answered`
        are monotonic times, `redis_now` the one that Redis gave somewhere between them.
        """
        early, late = redis_now - answered - _CLOCK_TOLERANCE, redis_now - asked + _CLOCK_TOLERANCE
        if server != self._server:
            return "another Redis answers than the one that leases are renewed at"
        if answered - asked > _CLOCK_TOLERANCE:
            return f"Redis takes longer than {_CLOCK_TOLERANCE:g} s to answer"
        return None if early <= self._offset <= late else "the clock of Redis is not in step with this machine's"

    def lost(self) -> None:
        """Take note of a renewal that failed."""
        self._since = None

    def earned(self, monotonic: float) -> bool:
        """Whether the last full lease was one of renewals that succeeded."""
        return (
            self._since is not None and self._last - self._since >= self.lease and monotonic - self._last <= self.lease
        )
