"""What people and producers look at: one job, lists of jobs. Nothing read here is trusted.

A reading is a generator that yields batches of commands and is sent their replies, so that asyncio and plain
callers share it (see `jobqd.client.procedure`). It asks for a key's type first: one foreign key must not
spoil a list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jobqd.job import DAEMON_FIELDS, created_at, integer
from jobqd.keys import Keys
from jobqd.store.call import Argument

T = TypeVar("T")
Commands = Sequence[Sequence[Argument]]
Reading = Generator[Commands, list[Any], T]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
"""The statuses with which a job ends."""
STATUSES = ("queued", "processing", "scheduled", "retrying", "held", "completed", "failed", "cancelled")
"""What a list can be asked for; `held` are queued jobs that may not run now."""
_CHUNK = 200
_LOOKED_AT_MAX = 10_000
_PRIORITY = re.compile(r"-?\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `percent` is 0 to 100; `eta_seconds` are left; None: not known."""

    status: str
    percent: float | None = None
    step: str | None = None
    eta_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class JobInfo:
    """Everything Redis knows about one job when it was looked at. Times are Unix seconds of Redis's clock.

    `place` is the index that holds it: ready, active, scheduled, held, or "" for none; `score` its score
    there. `ahead` counts the jobs before it among the ready. `ttl` are the seconds until it is forgotten.
    """

    id: str
    seen_at: float
    fields: Mapping[str, str]
    place: str = ""
    score: float | None = None
    ahead: int | None = None
    ttl: float | None = None
    status: str = field(init=False)
    type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", self.fields.get("status") or "queued")
        object.__setattr__(self, "type", self.fields.get("type", ""))

    @property
    def ended(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.status in TERMINAL

    @property
    def priority(self) -> int | None:
        """The lower the sooner."""
        text = self.fields.get("priority", "")
        if self.place in ("ready", "held") and self.score is not None and math.isfinite(self.score):
            return math.floor(self.score)
        return int(text) if _PRIORITY.fullmatch(text) else None

    @property
    def attempts(self) -> int:
        """Runs charged so far."""
        return integer(self.fields.get("attempts"))

    @property
    def max_attempts(self) -> int | None:
        """The producer's own limit; None: the daemon's settings decide."""
        return integer(self.fields.get("max_attempts")) or None

    @property
    def created_at(self) -> float | None:
        """When the producer says it was enqueued."""
        return created_at(self.fields) or None

    @property
    def started_at(self) -> float | None:
        """When its last run was claimed."""
        return number(self.fields.get("started_at"))

    @property
    def finished_at(self) -> float | None:
        """When it ended."""
        return number(self.fields.get("finished_at"))

    @property
    def due_at(self) -> float | None:
        """When a delayed job or a retry becomes ready."""
        return self.score if self.place == "scheduled" else None

    @property
    def held(self) -> str:
        """Why it may not run now, such as "type:video_render"; empty if it may."""
        return self.fields.get("held", "")

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return progress_of(self.status, self.fields)

    @property
    def payload(self) -> Any:
        """The producer's payload as JSON value; its text if that is not JSON; None if there is none."""
        return decoded(self.fields.get("payload"))

    @property
    def result(self) -> Any:
        """The handler's result as JSON value; its text if that is not JSON; None if there is none."""
        return decoded(self.fields.get("result"))

    @property
    def checkpoint(self) -> Any:
        """What the last run saved."""
        return decoded(self.fields.get("checkpoint"))

    @property
    def own_fields(self) -> dict[str, str]:
        """The producer's own hash fields."""
        return {
            name: text for name, text in self.fields.items() if name not in DAEMON_FIELDS and not name.startswith("_")
        }

    @property
    def history(self) -> list[dict[str, Any]]:
        """The failures so far, oldest first: at, attempt, fence, error_type, error."""
        lines = (decoded(line) for line in self.fields.get("_history", "").splitlines())
        return [line for line in lines if isinstance(line, dict)]


def number(text: Any) -> float | None:
    """Return a finite number that Redis holds as text, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def decoded(text: str | None) -> Any:
    """Return a JSON text's value, or the text itself if it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def progress_of(status: str, facts: Mapping[str, Any]) -> Progress:
    """Return the progress that a hash or a published message tells."""
    percent, eta, step = number(facts.get("progress")), number(facts.get("eta_seconds")), facts.get("step")
    return Progress(
        status,
        None if percent is None else min(100.0, max(0.0, percent)),
        step if isinstance(step, str) and step else None,
        None if eta is None or eta < 0 else eta,
    )


def progress_message(text: str) -> dict[str, Any]:
    """Return what was published on a job's channel; anything that is not a JSON object tells nothing."""
    value = decoded(text)
    return value if isinstance(value, dict) else {}


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
