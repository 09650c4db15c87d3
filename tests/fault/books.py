"""Everything that the invariants speak of: what the handlers' ledger says, what Redis says, what a scenario knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobqd.keys import Keys
from tests.fault.ledger import LedgerRun

TERMINAL = ("completed", "failed", "cancelled")
JOB_TTL, DEAD_TTL = 24 * 3600, 30 * 24 * 3600
"""The defaults of the settings, in seconds."""


@dataclass
class Books:
    """Read while nothing changes."""

    acknowledged: set[str]
    runs: dict[str, list[LedgerRun]]
    jobs: dict[str, dict[str, str]]
    ttls: dict[str, int]
    places: dict[str, list[str]]
    counters: dict[str, int]
    keys_without_end: list[str]
    dead: list[str]
    """The dead letters, newest first."""
    now: float
    """By the clock of Redis."""
    lossy: bool = False
    """Whether Redis itself lost acknowledged writes: then only what is left must add up."""
    leases_twice: bool = False
    """Whether a daemon lived through such a loss: it may be given the same lease (worker, fence) again."""
    tight: bool = False
    """Whether Redis was short of memory: jobs that complete meanwhile are kept for minutes."""
    expected_to_fail: frozenset[str] = field(default_factory=frozenset)
    snoozed: frozenset[str] = field(default_factory=frozenset)
    """Jobs whose first run snoozed, which is charged to nobody."""
    earlier: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """How an id had ended before it began anew: by an operator's retry, or because a producer used it again."""

    def number(self, job_id: str, name: str) -> int:
        """Return an integer field of a job, 0 if it has none."""
        return int(self.jobs[job_id].get(name, 0))

    def charged(self, name: str) -> int:
        """Return the sum of a field of charges over all jobs."""
        return sum(self.number(job_id, name) for job_id in self.jobs)

    def history(self, job_id: str) -> list[str]:
        """Return the types of the errors that a job's runs ended with, the last ten at most."""
        lines = self.jobs[job_id].get("_history", "").splitlines()
        return [str(json.loads(line)["error_type"]) for line in lines]


def read_books(redis: Any, keys: Keys, acknowledged: set[str], runs: dict[str, list[LedgerRun]]) -> Books:
    """Read all jobs, indexes and counters of a queue that is at rest."""
    ids = [name.removeprefix(keys.job_prefix) for name in redis.scan_iter(f"{keys.job_prefix}*", 1000)]
    pipe = redis.pipeline(transaction=False)
    for job_id in ids:
        pipe.hgetall(keys.job(job_id)).ttl(keys.job(job_id))
    flat = pipe.execute()
    reasons = redis.smembers(keys.held)
    indexes = {"ready": keys.ready, "active": keys.active, "scheduled": keys.scheduled}
    indexes |= {f"held:{reason}": keys.held_for(reason) for reason in reasons}
    places: dict[str, list[str]] = {}
    for name, key in indexes.items():
        for job_id in redis.zrange(key, 0, -1):
            places.setdefault(job_id, []).append(name)
    ends = [*redis.scan_iter(f"{keys.claim_prefix}*"), *redis.scan_iter(f"{keys.daemon_prefix}*")]
    counters = {name: int(text) for name, text in redis.hgetall(keys.counters).items()}
    seconds, micros = redis.time()
    return Books(
        acknowledged, runs, dict(zip(ids, flat[::2], strict=True)), dict(zip(ids, flat[1::2], strict=True)), places,
        counters, [key for key in ends if redis.ttl(key) == -1], redis.lrange(keys.dead, 0, -1),
        seconds + micros / 1e6,
    )  # fmt: skip
