"""Telling the daemons of an instance to claim no more jobs, or to claim again, and waiting until they say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobqd.client.procedure import Pause, Procedure
from jobqd.keys import Keys
from jobqd.store import counting
from jobqd.store.counting import DaemonInfo

PATIENCE = 10.0
"""Seconds that a daemon has to say that it follows: it says so at once, or after an outage with its next renewal."""
_POLL = 0.25


@dataclass(frozen=True, slots=True)
class Rested:
    """What the daemons of an instance said in the end; `others` are those that run, if none of this name does."""

    daemons: list[DaemonInfo]
    others: list[str]


def follows(daemon: DaemonInfo, *, quiet: bool) -> bool:
    """Whether a daemon says that it claims nothing (a stopping one claims nothing either), or that it claims."""
    return daemon.status in ("quiet", "draining") if quiet else daemon.status == "running"


def rest(
    keys: Keys, instance: str, *, quiet: bool, host: str | None = None, patience: float = PATIENCE
) -> Procedure[Rested]:
    """Tell every daemon of the instance, on every host or on one; returns when all follow, or after `patience` (s)."""
    left = patience
    while True:
        running = yield from counting.daemons(keys)
        chosen = [daemon for daemon in running if daemon.instance == instance and host in (None, daemon.host)]
        waiting = [daemon for daemon in chosen if not follows(daemon, quiet=quiet)]
        if not waiting or left <= 0:
            return Rested(chosen, [] if chosen else sorted(_names(running)))
        # Again and again: a daemon whose subscription has just broken hears nothing.
        yield [("PUBLISH", keys.control, f"{'quiet' if quiet else 'resume'} {daemon.worker}") for daemon in waiting]
        yield Pause(_POLL)
        left -= _POLL


def _names(daemons: list[DaemonInfo]) -> Iterator[str]:
    for daemon in daemons:
        yield f"{daemon.instance} on {daemon.host}"
