"""Every Redis key and channel, each from one line; docs/protocol.md describes what they hold."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_MAX = 128


def is_type(text: str) -> bool:
    """Whether a text may be a job type: it stands in keys and log lines."""
    return 0 < len(text) <= TYPE_MAX and text.isprintable() and " " not in text


BASE_KINDS = ("zset", "zset", "zset", "set", "zset", "list", "list", "hash")
"""What TYPE says of KEYS[1] to KEYS[8] of every script."""


class Keys:
    """The names of one queue's keys under one prefix."""

    __slots__ = (
        "active", "base", "claim_prefix", "control", "counters", "daemon_prefix", "daemons", "dead", "dead_ids",
        "finished", "held", "job_prefix", "missing", "prefix", "progress_prefix", "ready", "registered", "scheduled",
    )  # fmt: skip

    def __init__(self, prefix: str = "", queue: str = "job_queue") -> None:
        base = prefix + queue
        self.prefix = prefix
        self.ready = base
        self.active = f"{base}:active"
        self.scheduled = f"{base}:scheduled"
        self.held = f"{base}:held"
        self.missing = f"{base}:missing"
        self.dead = f"{base}:dead"
        self.dead_ids = f"{self.dead}:ids"
        """Written by scripts alone, which derive the name from that of `dead`."""
        self.finished = f"{base}:finished"
        self.counters = f"{base}:counters"
        self.daemons = f"{base}:daemons"
        self.control = f"{base}:control"
        self.registered = f"{prefix}jobqd:queue"
        """Names the one queue of this prefix."""
        self.claim_prefix = f"{base}:claim:"
        self.daemon_prefix = f"{base}:daemon:"
        self.job_prefix = f"{prefix}job:"
        self.progress_prefix = f"{prefix}job:progress:"
        self.base = (
            self.ready, self.active, self.scheduled, self.held, self.missing, self.dead, self.finished, self.counters,
        )  # fmt: skip
        """KEYS[1] to KEYS[8] of every script."""

    def job(self, job_id: str) -> str:
        """The hash of one job."""
        return self.job_prefix + job_id

    def progress(self, job_id: str) -> str:
        """The channel on which one job's progress is published."""
        return self.progress_prefix + job_id

    def held_for(self, reason: str) -> str:
        """The sorted set of jobs that wait for one reason, such as "type:video_render"."""
        return f"{self.held}:{reason}"

    def claim(self, worker: str) -> str:
        """The record of a daemon's last claim."""
        return self.claim_prefix + worker

    def daemon(self, worker: str) -> str:
        """The hash in which a running daemon describes itself."""
        return self.daemon_prefix + worker


@dataclass(frozen=True, slots=True)
class Seat:
    """One daemon's place at one queue: its keys, the random id of the process, and how long its leases last (s)."""

    keys: Keys
    worker: str
    lease: float
