"""What people and producers look at: one job, lists of jobs. Nothing read here is trusted.

A reading is a generator that yields batches of commands and is sent their replies, so that asyncio and plain
callers share it (see `jobqd.client.procedure`). It asks for a key's type first: one foreign key must not
spoil a list.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jobqd.keys import Keys
from jobqd.store.call import Argument
from jobqd.store.facts import JobInfo, number

T = TypeVar("T")
Commands = Sequence[Sequence[Argument]]
Reading = Generator[Commands, list[Any], T]

STATUSES = ("queued", "processing", "scheduled", "retrying", "held", "completed", "failed", "cancelled")
"""What a list can be asked for; `held` are queued jobs that may not run now."""
_CHUNK = 200
_LOOKED_AT_MAX = 10_000


def status_of(keys: Keys, job_id: str) -> Reading[str | None]:
    """Tell a job's status; None if there is no such job."""
    fields = yield from fields_of(keys, job_id, ("status", "type", "created_at"))
    return None if fields is None else fields.get("status") or "queued"


def fields_of(keys: Keys, job_id: str, names: Sequence[str]) -> Reading[dict[str, str] | None]:
    """Read some fields of a job; None if there is no such job (or no hash in its place)."""
    (kind,) = yield [("TYPE", keys.job(job_id))]
    if kind != "hash":
        return None
    (values,) = yield [("HMGET", keys.job(job_id), *names)]
    return {name: text for name, text in zip(names, values, strict=True) if text is not None}


def show(keys: Keys, job_id: str) -> Reading[JobInfo | None]:
    """Read everything about one job; None if there is no such job."""
    found = yield from _described(keys, [job_id])
    if not found:
        return None
    info = found[0]
    if info.place != "ready":
        return info
    (rank,) = yield [("ZRANK", keys.ready, job_id)]
    return _with_rank(info, rank)


def _with_rank(info: JobInfo, rank: Any) -> JobInfo:
    ahead = rank if isinstance(rank, int) else None
    return JobInfo(info.id, info.seen_at, info.fields, info.place, info.score, ahead, info.ttl)


def _described(keys: Keys, ids: Sequence[str]) -> Reading[list[JobInfo]]:
    """Read these jobs; ids without a hash are left out."""
    kinds = yield [("TYPE", keys.job(job_id)) for job_id in ids]
    there = [job_id for job_id, kind in zip(ids, kinds, strict=True) if kind == "hash"]
    if not there:
        return []
    commands: list[Sequence[Argument]] = [("TIME",)]
    for job_id in there:
        key = keys.job(job_id)
        commands += [
            ("HGETALL", key), ("PTTL", key), ("ZSCORE", keys.active, job_id),
            ("ZSCORE", keys.scheduled, job_id), ("ZSCORE", keys.ready, job_id),
        ]  # fmt: skip
    replies = yield commands
    now = _seconds(replies[0])
    jobs = [_info(job_id, now, replies[1 + 5 * n : 6 + 5 * n]) for n, job_id in enumerate(there)]
    return [job for job in jobs if job.fields]


def _info(job_id: str, now: float, replies: Sequence[Any]) -> JobInfo:
    flat, ttl, active, scheduled, ready = replies
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    place, score = "", None
    for name, text in (("active", active), ("scheduled", scheduled), ("ready", ready)):
        if text is not None:
            place, score = name, number(text)
            break
    else:
        place = "held" if fields.get("held") else ""
    return JobInfo(job_id, now, fields, place, score, None, ttl / 1000 if ttl >= 0 else None)


def _seconds(time: Sequence[str | int]) -> float:
    return int(time[0]) + int(time[1]) / 1e6


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of jobs. `more`: there are others; `looked_at` entries were read to find these."""

    jobs: list[JobInfo]
    more: bool
    looked_at: int


def listing(keys: Keys, *, status: str | None = None, job_type: str | None = None, limit: int = 20) -> Reading[Listing]:
    """List jobs: those that run, wait, are due later and ended of late, or only one status (one of STATUSES).

    At most 10,000 entries are read to find `limit` jobs of a rare type.
    """
    jobs: list[JobInfo] = []
    seen: set[str] = set()
    looked_at = 0
    sources = yield from _sources(keys, status)
    for source in sources:
        offset = 0
        while looked_at < _LOOKED_AT_MAX:
            size = _CHUNK if status or job_type else min(_CHUNK, limit + 1)
            ids = yield from _ids(source, offset, size)
            fresh = [job_id for job_id in ids if job_id not in seen]
            seen.update(fresh)
            found = yield from _described(keys, fresh)
            jobs += [job for job in found if _wanted(job, status, job_type)]
            looked_at, offset = looked_at + len(ids), offset + size
            if len(jobs) > limit:
                return Listing(jobs[:limit], True, looked_at)
            if len(ids) < size:
                break
    return Listing(jobs, looked_at >= _LOOKED_AT_MAX, looked_at)


def _wanted(job: JobInfo, status: str | None, job_type: str | None) -> bool:
    if job_type is not None and job.type != job_type:
        return False
    return status in (None, job.status) or (status == "held" and bool(job.held) and not job.ended)


def _sources(keys: Keys, status: str | None) -> Reading[list[tuple[str, str]]]:
    """Name the keys that hold the ids of a status, with the command that reads them, most telling first."""
    reasons = yield from held_reasons(keys)
    held = [("ZRANGE", keys.held_for(reason)) for reason in reasons]
    ready, active = ("ZRANGE", keys.ready), ("ZRANGE", keys.active)
    scheduled, finished, dead = ("ZRANGE", keys.scheduled), ("LRANGE", keys.finished), ("LRANGE", keys.dead)
    by_status = {
        "queued": [ready, *held], "held": held, "processing": [active], "scheduled": [scheduled],
        "retrying": [scheduled], "completed": [finished], "cancelled": [finished], "failed": [dead],
    }  # fmt: skip
    everything = [active, ready, *held, scheduled, finished, dead]
    return by_status.get(status, []) if status is not None else everything


def held_reasons(keys: Keys) -> Reading[list[str]]:
    """Name the reasons for which jobs are held."""
    (kind,) = yield [("TYPE", keys.held)]
    if kind != "set":
        return []
    (reasons,) = yield [("SMEMBERS", keys.held)]
    return sorted(reasons)


def _ids(source: tuple[str, str], offset: int, size: int) -> Reading[list[str]]:
    command, key = source
    (kind,) = yield [("TYPE", key)]
    if kind != {"ZRANGE": "zset", "LRANGE": "list"}[command]:
        return []
    (ids,) = yield [(command, key, offset, offset + size - 1)]
    return list(ids)
