"""The invariants, each under its letter: what the handlers' ledger says held against what Redis says.

L none lost · O one accepted owner · C counts conserved · F stale refused · T every key of an ended job expires ·
A attempts charged rightly. R (recovered within its bound) and W (the watch over the loop) are asserted by the
scenarios, which know the bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobqd.keys import Keys
from tests.fault.ledger import LedgerRun

TERMINAL = ("completed", "failed", "cancelled")


@dataclass
class Books:
    """Everything that the invariants speak of, read while nothing changes."""

    acknowledged: set[str]
    runs: dict[str, list[LedgerRun]]
    jobs: dict[str, dict[str, str]]
    ttls: dict[str, int]
    places: dict[str, list[str]]
    counters: dict[str, int]
    keys_without_end: list[str]
    dead: list[str]
    """The dead letters, newest first."""
    lossy: bool = False
    """Whether Redis itself lost acknowledged writes: then only what is left must add up."""
    expected_to_fail: frozenset[str] = field(default_factory=frozenset)
    snoozed: frozenset[str] = field(default_factory=frozenset)
    """Jobs whose first run snoozed, which is charged to nobody."""
    revived: Mapping[str, int] = field(default_factory=dict)
    """How often each dead letter was put back into the queue: it had been counted as failed, and begins anew."""


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
    return Books(
        acknowledged, runs, dict(zip(ids, flat[::2], strict=True)), dict(zip(ids, flat[1::2], strict=True)), places,
        counters, [key for key in ends if redis.ttl(key) == -1], redis.lrange(keys.dead, 0, -1),
    )  # fmt: skip


def none_lost(books: Books) -> Iterator[str]:
    """L: an acknowledged job is in Redis, ended or in exactly one index; a completed one ran to its end."""
    for job_id in sorted(books.acknowledged):
        job, places = books.jobs.get(job_id), books.places.get(job_id, [])
        if job is None:
            if not books.lossy:
                yield f"{job_id} was acknowledged and is gone"
        elif job.get("status") in TERMINAL:
            if places:
                yield f"{job_id} is {job['status']} and still in {places}"
            if job["status"] == "completed" and not any(run.ended for run in books.runs.get(job_id, [])):
                yield f"{job_id} is completed, but no handler got to its end"
        elif len(places) != 1:
            yield f"{job_id} is {job.get('status')} and in {places or 'no index'}"
    failed = sorted(job_id for job_id, job in books.jobs.items() if job.get("status") == "failed")
    if sorted(books.dead) != failed and not books.lossy:
        yield f"the dead letters are {books.dead}, failed are {failed}"


def one_owner(books: Books) -> Iterator[str]:
    """O: the result that was accepted is that of one run, the one that Redis names."""
    for job_id, job in books.jobs.items():
        if job.get("status") != "completed" or "result" not in job:
            continue
        result = json.loads(job["result"])
        names = [run.name for run in books.runs.get(job_id, []) if run.ended is not None]
        times = names.count((result["pid"], result["fence"]))
        if times != 1 and not (books.lossy and times):
            yield f"{job_id}: the accepted result {result} is not that of one ended run {names}"


def counts_conserved(books: Books) -> Iterator[str]:
    """C: entered = completed + failed + cancelled + entered jobs that have not ended; each counter is its jobs."""
    count = books.counters.get
    unfinished = sum(job.get("status") not in TERMINAL and "_due_at" in job for job in books.jobs.values())
    ended = sum(count(status, 0) for status in TERMINAL)
    if count("entered", 0) != ended + unfinished:
        yield f"entered {count('entered', 0)}, but {ended} ended and {unfinished} have not: {books.counters}"
    for status in TERMINAL:
        jobs = sum(job.get("status") == status for job in books.jobs.values())
        if jobs != count(status, 0) - (sum(books.revived.values()) if status == "failed" else 0):
            yield f"{jobs} jobs are {status}, the counter says {count(status, 0)}"


def stale_refused(books: Books) -> Iterator[str]:
    """F: the accepted result comes from the last lease, and no fence was given twice."""
    for job_id, job in books.jobs.items():
        fences = [run.fence for run in books.runs.get(job_id, [])]
        if not books.lossy and len(set(fences)) != len(fences):
            yield f"{job_id}: one fence began two runs: {fences}"
        if job.get("status") == "completed" and "result" in job:
            accepted = json.loads(job["result"])["fence"]
            if str(accepted) != job["fence"]:
                yield f"{job_id}: the result of fence {accepted} was accepted, the lease was at {job['fence']}"


def keys_expire(books: Books) -> Iterator[str]:
    """T: ended jobs have a TTL, others have none, and what daemons leave behind expires."""
    for job_id, job in books.jobs.items():
        ended = job.get("status") in TERMINAL
        if ended != (books.ttls[job_id] >= 0):
            yield f"{job_id} is {job.get('status')} with TTL {books.ttls[job_id]}"
    for key in books.keys_without_end:
        yield f"{key} has no TTL"


def charged_rightly(books: Books) -> Iterator[str]:
    """A: only ends of a handler's own are attempts; every other run that began is a crash or an interruption."""
    for job_id, job in books.jobs.items():
        attempts, crashes, interruptions, fence = (
            int(job.get(name, 0)) for name in ("attempts", "crashes", "interruptions", "fence")
        )
        status, began = job.get("status"), len({run.name for run in books.runs.get(job_id, [])})
        if status == "completed" and attempts != 1 and job_id not in books.expected_to_fail:
            yield f"{job_id} completed in its first own end, charged {attempts} attempts"
        if status == "failed" and job_id not in books.expected_to_fail:
            yield f"{job_id} failed: {job.get('error')}"
        charged = attempts + crashes + interruptions
        if charged > fence and not books.lossy:
            yield f"{job_id}: {charged} charges for {fence} leases"
        # A cancel is charged to nobody, and an operator's retry forgets what was.
        counted = status in ("completed", "failed") and job_id not in books.revived
        if counted and began > charged + (job_id in books.snoozed) and not books.lossy:
            yield f"{job_id}: {began} runs began, charged {attempts=} {crashes=} {interruptions=}"


INVARIANTS: dict[str, Callable[[Books], Iterator[str]]] = {
    "L": none_lost,
    "O": one_owner,
    "C": counts_conserved,
    "F": stale_refused,
    "T": keys_expire,
    "A": charged_rightly,
}


def violations(books: Books) -> list[str]:
    """Return every violation, each beginning with the letter of its invariant."""
    return [f"{letter}: {text}" for letter, check in INVARIANTS.items() for text in check(books)]
