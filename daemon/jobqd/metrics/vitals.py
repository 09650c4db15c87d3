"""How the daemon is at this moment, and what that means to whoever asks whether it is well."""

from __future__ import annotations

from dataclasses import dataclass

from jobqd.units import format_duration

TURNS_WITHIN = 3.0
"""A loop that has not turned for so many seconds makes the daemon unwell; `loop.blocked` is logged after one."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at the daemon, from any thread. `away` is for how many seconds Redis has been away, None if it serves.

    `status` is how it describes itself: running, or why it claims nothing. `owed`: see `LoopLag.owed`.
    """

    workers: int
    busy: int
    backlog: int
    """Outcomes that wait to be written."""
    away: float | None
    outages: int
    status: str
    claimed: bool
    """Whether Redis has answered a claim yet."""
    owed: float

    def unwell(self) -> str | None:
        """Return why the daemon is not well, None if it is."""
        if self.owed < TURNS_WITHIN:
            return None
        return f"the event loop has been blocked for {format_duration(self.owed)}: see loop.blocked in the log"

    def idle(self) -> str | None:
        """Return why the daemon claims no jobs, None if it does."""
        if unwell := self.unwell():
            return unwell
        if self.status != "running":
            return f"it claims no more: {self.status}"
        if self.away is not None:
            return f"Redis has been away for {format_duration(self.away)}"
        return None if self.claimed else "starting: Redis has not answered a claim yet"
