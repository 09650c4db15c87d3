"""The queue as a whole: how many jobs are where, what was counted, which daemons run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobqd.job import integer
from jobqd.keys import Keys
from jobqd.store.call import Argument, mapping
from jobqd.store.facts import decoded, number
from jobqd.store.reading import Reading, held_reasons
from jobqd.store.waiting import longest_wait, together

_LEVELS_MAX = 20
_HELD_AGED = 50
_OLDEST_PLAUSIBLE = 1e8


@dataclass(frozen=True, slots=True)
class DaemonInfo:
    """A running daemon as it described itself with its last beat. `types` is empty if it cannot be read."""

    worker: str
    instance: str
    host: str
    pid: int
    version: str
    started_at: float | None
    concurrency: int
    running: int
    types: tuple[str, ...]
    status: str


@dataclass(frozen=True, slots=True)
class Level:
    """The ready jobs of one priority.

    `waiting` is the age of the oldest in seconds, None where its score is plain.
    """

    priority: int
    jobs: int
    waiting: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The queue at one moment. `now` is Redis's clock in Unix seconds; `held` counts jobs by reason.

    `oldest` tells for how many seconds the longest waiting ready job has been ready, and `held_oldest` the same of the
    first 50 reasons for holding; None where nothing tells (`jobqd.store.waiting`).
    `levels` are the most urgent priorities, at most 20; `overdue` counts leases that ran out.
    `foreign` names keys of the queue that hold something of another type.
    """

    now: float
    ready: int
    active: int
    overdue: int
    scheduled: int
    next_due: float | None
    held: Mapping[str, int]
    dead: int
    counters: Mapping[str, int]
    levels: Sequence[Level]
    daemons: Sequence[DaemonInfo]
    foreign: Sequence[str]
    oldest: float | None
    held_oldest: Mapping[str, float | None]


def stats(keys: Keys) -> Reading[Stats]:
    """Count the jobs in every index, and name the daemons."""
    expected = {
        keys.ready: "zset", keys.active: "zset", keys.scheduled: "zset", keys.held: "set", keys.dead: "list",
        keys.counters: "hash", keys.daemons: "zset",
    }  # fmt: skip
    time, *kinds = yield [("TIME",), *(("TYPE", key) for key in expected)]
    now = int(time[0]) + int(time[1]) / 1e6
    usable = {key for (key, kind), found in zip(expected.items(), kinds, strict=True) if found == kind}
    foreign = [key for (key, kind), found in zip(expected.items(), kinds, strict=True) if found not in ("none", kind)]
    sizes = yield from _sizes(keys, now, usable)
    held = yield from _held(keys)
    levels = (yield from _levels(keys, now)) if keys.ready in usable else []
    oldest, held_oldest = yield from _waits(keys, now, ready=keys.ready in usable, held=list(held)[:_HELD_AGED])
    counters = (yield from _counters(keys)) if keys.counters in usable else {}
    running = (yield from daemons(keys)) if keys.daemons in usable else []
    dead = (yield from _length(keys.dead)) if keys.dead in usable else 0
    return Stats(
        now, *sizes, held, dead=dead, counters=counters, levels=levels, daemons=running, foreign=foreign,
        oldest=oldest, held_oldest=held_oldest,
    )  # fmt: skip


def _sizes(keys: Keys, now: float, usable: set[str]) -> Reading[tuple[int, int, int, int, float | None]]:
    ready = active = overdue = scheduled = 0
    next_due = None
    if keys.ready in usable:
        (ready,) = yield [("ZCARD", keys.ready)]
    if keys.active in usable:
        active, overdue = yield [("ZCARD", keys.active), ("ZCOUNT", keys.active, "-inf", f"({now:.6f}")]
    if keys.scheduled in usable:
        scheduled, first = yield [("ZCARD", keys.scheduled), ("ZRANGE", keys.scheduled, 0, 0, "WITHSCORES")]
        next_due = number(first[1]) if first else None
    return ready, active, overdue, scheduled, next_due


def _length(key: str) -> Reading[int]:
    (length,) = yield [("LLEN", key)]
    return int(length)


def _held(keys: Keys) -> Reading[dict[str, int]]:
    reasons = yield from held_reasons(keys)
    if not reasons:
        return {}
    kinds = yield [("TYPE", keys.held_for(reason)) for reason in reasons]
    there = [reason for reason, kind in zip(reasons, kinds, strict=True) if kind == "zset"]
    if not there:
        return {}
    counts = yield [("ZCARD", keys.held_for(reason)) for reason in there]
    return dict(zip(there, counts, strict=True))


def _waits(
    keys: Keys, now: float, *, ready: bool, held: list[str]
) -> Reading[tuple[float | None, dict[str, float | None]]]:
    indexes = [keys.ready] * ready + [keys.held_for(reason) for reason in held]
    waits = yield from together([longest_wait(keys, index, now) for index in indexes])
    return (waits.pop(0) if ready else None), dict(zip(held, waits, strict=True))


def _counters(keys: Keys) -> Reading[dict[str, int]]:
    (flat,) = yield [("HGETALL", keys.counters)]
    return {name: integer(text) for name, text in mapping(flat).items()}


def _levels(keys: Keys, now: float) -> Reading[list[Level]]:
    """Hop from one priority to the next: within one, the first is the oldest."""
    levels: list[Level] = []
    lowest = "-inf"
    while len(levels) < _LEVELS_MAX:
        (first,) = yield [("ZRANGEBYSCORE", keys.ready, lowest, "+inf", "WITHSCORES", "LIMIT", 0, 1)]
        score = number(first[1]) if first else None
        if score is None or abs(score) > 1e15:
            break
        priority = math.floor(score)
        (jobs,) = yield [("ZCOUNT", keys.ready, priority, f"({priority + 1}")]
        levels.append(Level(priority, jobs, _age(score, now)))
        lowest = str(priority + 1)
    return levels


def _age(score: float, now: float) -> float | None:
    """Return how long a job has been ready.

    The fraction of our clients' scores is Unix time / 1e10; a raw producer's plain score says nothing.
    """
    age = now - (score - math.floor(score)) * 1e10
    return max(0.0, age) if -60 < age < _OLDEST_PLAUSIBLE else None


def daemons(keys: Keys) -> Reading[list[DaemonInfo]]:
    """Name the daemons whose last beat still vouches for them."""
    time, kind = yield [("TIME",), ("TYPE", keys.daemons)]
    if kind != "zset":
        return []
    (workers,) = yield [("ZRANGEBYSCORE", keys.daemons, f"({time[0]}.{int(time[1]):06d}", "+inf")]
    if not workers:
        return []
    kinds = yield [("TYPE", keys.daemon(worker)) for worker in workers]
    there = [worker for worker, found in zip(workers, kinds, strict=True) if found == "hash"]
    if not there:
        return []
    commands: list[Sequence[Argument]] = [("HGETALL", keys.daemon(worker)) for worker in there]
    hashes = yield commands
    return [_daemon(worker, mapping(flat)) for worker, flat in zip(there, hashes, strict=True)]


def _daemon(worker: str, fields: Mapping[str, str]) -> DaemonInfo:
    types = decoded(fields.get("types"))
    return DaemonInfo(
        worker=worker,
        instance=fields.get("instance", ""),
        host=fields.get("host", ""),
        pid=integer(fields.get("pid")),
        version=fields.get("version", ""),
        started_at=number(fields.get("started_at")),
        concurrency=integer(fields.get("concurrency")),
        running=integer(fields.get("running")),
        types=tuple(name for name in types if isinstance(name, str)) if isinstance(types, list) else (),
        status=fields.get("status", "running"),
    )
