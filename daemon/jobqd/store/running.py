"""The calls of a running daemon: claim, settle, renew, promote, recover, progress, checkpoint, walk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobqd.job import Claimed
from jobqd.keys import TYPE_MAX, Keys, Seat, is_type
from jobqd.retry import Settlement
from jobqd.scripts import script
from jobqd.store.call import Argument, Call, mapping, pairs
from jobqd.units import format_excess, shorten

CLAIM_MAX = 500
"""Most jobs in one claim or settle: Lua's unpack() and the time a script may hold the server set the bound."""
ASIDE_MAX = 100
FINISHED_MAX = 1000
_PATIENCE = 5.0
_RECORD_LEASES = 10
_TTL_MAX = 1e12
_FIELD_BYTES = 4096
"""As in claim.lua."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a claim brought. `more`: the head of the queue was full of jobs put aside, so ask again at once."""

    jobs: list[Claimed]
    more: bool
    dropped: list[tuple[str, str]]
    unhandled: list[str]
    """Types of jobs put aside because no handler here is theirs."""
    foreign: list[str]
    """Held sets in whose place a key of another type stands; jobs that belong there are tried again in a minute."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """From how many crashes on a job is a suspect, and how many more of them may run here (-1: no cap)."""

    crashes: int
    room: int


_NO_SUSPECTS = Suspects(0, -1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Most bytes of the payload and own fields of a job together, and of a result or checkpoint (-1: no limit)."""

    payload: int
    result: int


_NO_LIMITS = Sizes(-1, -1)


def claim(
    seat: Seat, number: int, want: int, max_age: float, allowances: Mapping[str, int],
    suspects: Suspects = _NO_SUSPECTS, sizes: Sizes = _NO_LIMITS,
) -> Call[Claims]:  # fmt: skip
    """Lease up to `want` jobs; `allowances` tells for each type how many more may run here (-1: no cap).

    A job beyond `sizes`, or with any other field of the daemon beyond 4 KiB, comes without its large fields, as unfit.
    """
    keys = seat.keys
    args: list[Argument] = [
        keys.job_prefix, keys.progress_prefix, seat.worker, number, min(want, CLAIM_MAX), seat.lease, ASIDE_MAX,
        int(seat.lease * 1000 * _RECORD_LEASES), max_age, suspects.crashes, suspects.room,
        sizes.payload, sizes.result,
    ]  # fmt: skip
    for job_type, allowance in allowances.items():
        args += (job_type, allowance)
    return Call(script("claim"), (*keys.base, keys.claim(seat.worker)), args, partial(_claims, sizes))


def _claims(sizes: Sizes, reply: Any) -> Claims:
    now = float(reply[0])
    jobs = []
    for job_id, fence, score, flat, excess in reply[2]:
        fields = mapping(flat)
        unfit = _too_large(excess[0], excess[1], sizes) if excess else _no_type(fields.get("type", ""))
        jobs.append(Claimed(job_id, fence, float(score), now, fields, unfit))
    return Claims(jobs, bool(reply[1]), pairs(reply[3]), list(reply[4]), list(reply[5]))


def _too_large(name: str, size: int, sizes: Sizes) -> str:
    if not name:
        told, limit = format_excess(size, sizes.payload)
        return (
            f"payload and own fields are {told}, more than max_payload ({limit}): "
            "store the data elsewhere and pass a reference to it, such as a path or URL, or raise max_payload"
        )
    if name == "checkpoint":
        told, limit = format_excess(size, sizes.result)
        return f"its checkpoint is {told}, more than max_result ({limit}): HDEL it, or raise max_result"
    told, limit = format_excess(size, _FIELD_BYTES)
    return f"its field {name} is {told}, more than the {limit} that it may be"


def _no_type(job_type: str) -> str:
    """Return what is wrong with a type that no handler can have; empty for one that is fine, or missing."""
    if not job_type or is_type(job_type):
        return ""
    return f"type {shorten(job_type)} cannot be one: write 1 to {TYPE_MAX} printable characters without spaces"


def settle(
    keys: Keys, settlements: Sequence[Settlement], *, dead_max: int, trimmed_ttl: float, as_of: float = math.inf
) -> Call[list[str]]:
    """Record how runs ended (at most CLAIM_MAX); one answer each: ok, already, cancelled, stale, renewed or gone.

    `as_of` is when leases were found to have run out (Redis's clock): one that ran out later has not lapsed.
    """
    args: list[Argument] = [
        keys.job_prefix, keys.progress_prefix, dead_max, _whole(trimmed_ttl), FINISHED_MAX,
        "" if math.isinf(as_of) else f"{as_of:.6f}",
    ]  # fmt: skip
    for order in settlements:
        args += (
            order.job_id, order.worker, order.fence, order.guard, order.to, order.charge, order.delay,
            _whole(order.ttl), order.result, order.error, order.error_type, order.traceback, order.history,
        )  # fmt: skip
    return Call(script("settle"), keys.base, args, list)


def _whole(seconds: float) -> int:
    """EXPIRE takes whole seconds; 0 would delete the key at once, and a time beyond its range is an error."""
    return max(1, int(min(seconds, _TTL_MAX)))


@dataclass(frozen=True, slots=True)
class Lapse:
    """A job whose lease ran out, with the worker that held it and the fields that decide what comes next."""

    job: Claimed
    worker: str


@dataclass(frozen=True, slots=True)
class Lapses:
    """Lapsed leases, where to go on ("0": that was all), and Redis's clock when it looked."""

    now: float
    cursor: str
    lapses: list[Lapse]


def lapsed(keys: Keys, *, dead_worker: str = "", cursor: str = "0", limit: int = 100) -> Call[Lapses]:
    """List leases that ran out, or all those of a worker that is known to be dead, from `cursor` on."""
    args: list[Argument] = [keys.job_prefix, dead_worker, cursor, limit]
    return Call(script("lapsed"), keys.base, args, _lapses)


def _lapses(reply: Any) -> Lapses:
    rows = [Lapse(Claimed(job_id, fence, 0.0, 0.0, mapping(flat)), worker) for job_id, worker, fence, flat in reply[2]]
    return Lapses(float(reply[0]), reply[1], rows)


@dataclass(frozen=True, slots=True)
class Promotion:
    """How many jobs became ready, seconds until the next is due (None: none), and ids dropped with the reason.

    `settled`: how many ids no longer wait for their hash. `corrected`: ids that were due at no time in seconds, with
    "milliseconds" if they were due at one in those, else "never".
    """

    moved: int
    next_due: float | None
    dropped: list[tuple[str, str]]
    settled: int
    corrected: list[tuple[str, str]]


def promote(keys: Keys, *, limit: int = 200) -> Call[Promotion]:
    """Move up to `limit` due jobs into the ready set."""
    args: list[Argument] = [keys.job_prefix, keys.progress_prefix, limit, _PATIENCE]
    return Call(script("promote"), keys.base, args, _promotion)


def _promotion(reply: Any) -> Promotion:
    next_due = None if reply[1] < 0 else reply[1] / 1000
    return Promotion(int(reply[0]), next_due, pairs(reply[2]), int(reply[3]), pairs(reply[4]))


@dataclass(frozen=True, slots=True)
class Beat:
    """Redis's clock at the renewal, and the runs that are no longer ours: (id, fence, cancelled or lost)."""

    now: float
    lost: list[tuple[str, int, str]]


def beat(seat: Seat, about: Mapping[str, Argument], runs: Iterable[tuple[str, int]]) -> Call[Beat]:
    """Renew the leases of these runs and vouch for this daemon, described by `about`."""
    described: list[Argument] = []
    for item in about.items():
        described += item
    keys, vouched = seat.keys, max(seat.lease, 2.0)
    args: list[Argument] = [keys.job_prefix, seat.worker, seat.lease, vouched, len(described), *described]
    for run in runs:
        args += run
    return Call(script("beat"), (*keys.base, keys.daemons, keys.daemon(seat.worker)), args, _beat)


def _beat(reply: Any) -> Beat:
    flat = reply[1]
    return Beat(float(reply[0]), list(zip(flat[::3], map(int, flat[1::3]), flat[2::3], strict=True)))


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """The latest progress of one run; `message` is the JSON that subscribers get."""

    job_id: str
    fence: int
    percent: str
    step: str
    eta_seconds: str
    message: str


def progress(seat: Seat, updates: Sequence[ProgressUpdate]) -> Call[int]:
    """Write and publish progress; returns how many were refused because the run no longer owns its job."""
    keys = seat.keys
    args: list[Argument] = [keys.job_prefix, keys.progress_prefix, seat.worker]
    for update in updates:
        args += (update.job_id, update.fence, update.percent, update.step, update.eta_seconds, update.message)
    return Call(script("progress"), keys.base, args, int)


def checkpoint(seat: Seat, job_id: str, fence: int, text: str, number: int) -> Call[bool]:
    """Save a run's checkpoint, the worker's `number`-th; false if the run no longer owns its job."""
    keys = seat.keys
    return Call(script("checkpoint"), keys.base, [keys.job_prefix, job_id, seat.worker, fence, text, number], bool)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the slow walk: where to go on ("0": it is round), and what was found: (id, what)."""

    cursor: str
    reports: list[tuple[str, str]]


def walk(
    keys: Keys,
    cursor: str,
    *,
    count: int,
    max_age: float,
    job_ttl: float,
    report_age: float = 600.0,
    repair: bool = False,
) -> Call[Step]:
    """Look at about `count` keys of the database and repair the jobs among them."""
    args: list[Argument] = [
        keys.job_prefix, cursor, _glob_escape(keys.job_prefix) + "*", count, max_age, _whole(job_ttl), report_age,
        int(repair),
    ]  # fmt: skip
    return Call(script("walk"), keys.base, args, lambda reply: Step(reply[0], pairs(reply[1])))


def _glob_escape(text: str) -> str:
    return "".join("\\" + char if char in "\\*?[]^" else char for char in text)
