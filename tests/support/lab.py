"""The scripts under the hands of a test: write as a raw producer does, run the store's calls, look at every index."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import redis

from jobqd.job import Claimed
from jobqd.keys import Keys, Seat
from jobqd.retry import Settlement
from jobqd.store import producing, running
from jobqd.store.call import Call
from jobqd.store.connect import Target
from jobqd.store.link import SyncLink
from jobqd.store.producing import Enqueued, NewJob

T = TypeVar("T")

MAIL: Mapping[str, int] = {"mail": -1}
"""Allowances of a daemon that runs mail without a cap."""
DAY = 86400.0
TERMINAL = ("completed", "failed", "cancelled")


class Lab:
    """One queue on a real server. Workers number their claims here as a daemon does."""

    def __init__(self, url: str, keys: Keys) -> None:
        self.keys = keys
        self.raw: Any = redis.Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape")
        self.link = SyncLink(Target(url))
        self.numbers: Counter[str] = Counter()

    def close(self) -> None:
        self.link.close()
        self.raw.close()

    def run(self, call: Call[T]) -> T:
        return self.link.run(call)

    # As a raw producer

    def hset(self, job_id: str, job_type: str = "mail", **fields: Any) -> None:
        self.raw.hset(self.keys.job(job_id), mapping={"status": "queued", "type": job_type, **fields})

    def zadd(self, job_id: str, score: float | str = 10) -> None:
        self.raw.execute_command("ZADD", self.keys.ready, score, job_id)

    def put(self, job_id: str, job_type: str = "mail", score: float | str = 10, **fields: Any) -> None:
        """The two commands."""
        self.hset(job_id, job_type, **fields)
        self.zadd(job_id, score)

    def set(self, job_id: str, **fields: Any) -> None:
        self.raw.hset(self.keys.job(job_id), mapping=fields)

    def lapse(self, job_id: str) -> None:
        """Let the lease of an active job have run out."""
        self.raw.zadd(self.keys.active, {job_id: 1}, xx=True)

    def make_due(self, job_id: str) -> None:
        """Let the time of a scheduled job have come."""
        self.raw.zadd(self.keys.scheduled, {job_id: 1000}, xx=True)

    # As a daemon or a client

    def claim_call(
        self, worker: str = "w1", want: int = 10, *, number: int | None = None, types: Mapping[str, int] = MAIL,
        lease: float = 15.0, max_age: float = 30 * DAY, suspects: running.Suspects | None = None,
    ) -> Call[running.Claims]:  # fmt: skip
        if number is None:
            self.numbers[worker] += 1
            number = self.numbers[worker]
        suspects = suspects or running.Suspects(crashes=0, room=-1)
        return running.claim(Seat(self.keys, worker, lease), number, want, max_age, types, suspects)

    def claim(self, worker: str = "w1", want: int = 10, **options: Any) -> running.Claims:
        return self.run(self.claim_call(worker, want, **options))

    def claim_ids(self, worker: str = "w1", want: int = 10, **options: Any) -> list[str]:
        return [job.id for job in self.claim(worker, want, **options).jobs]

    def claim_one(self, worker: str = "w1", **options: Any) -> Claimed:
        jobs = self.claim(worker, 1, **options).jobs
        assert len(jobs) == 1
        return jobs[0]

    def leased(self, job_id: str = "X", worker: str = "w1", **fields: Any) -> Claimed:
        """Put a job and claim it."""
        self.put(job_id, **fields)
        claimed = self.claim_one(worker)
        assert claimed.id == job_id
        return claimed

    def settle(
        self, *orders: Settlement, dead_max: int = 100, trimmed_ttl: float = DAY, as_of: float = math.inf
    ) -> list[str]:
        return self.run(running.settle(self.keys, orders, dead_max=dead_max, trimmed_ttl=trimmed_ttl, as_of=as_of))

    def end(self, claimed: Claimed, to: str = "completed", worker: str = "w1", **options: Any) -> str:
        return self.settle(order(claimed, to, worker, **options))[0]

    def lapsed(self, **options: Any) -> list[running.Lapse]:
        return self.run(running.lapsed(self.keys, **options)).lapses

    def promote(self) -> running.Promotion:
        return self.run(running.promote(self.keys))

    def beat(self, worker: str, *runs: tuple[str, int], lease: float = 15.0) -> list[tuple[str, int, str]]:
        return self.run(running.beat(Seat(self.keys, worker, lease), {"host": "here"}, runs)).lost

    def progress(self, worker: str, job_id: str, fence: int, percent: str = "50") -> int:
        update = running.ProgressUpdate(job_id, fence, percent, "step", "7", f'{{"progress": {percent}}}')
        return self.run(running.progress(Seat(self.keys, worker, 15.0), [update]))

    def checkpoint(self, worker: str, job_id: str, fence: int, text: str = '{"at": 1}', number: int = 1) -> bool:
        return self.run(running.checkpoint(Seat(self.keys, worker, 15.0), job_id, fence, text, number))

    def walk(self, *, repair: bool = False, max_age: float = 30 * DAY) -> list[tuple[str, str]]:
        """Walk once around; returns what was found."""
        reports, cursor = [], "0"
        while True:
            call = running.walk(self.keys, cursor, count=200, max_age=max_age, job_ttl=DAY, repair=repair)
            step = self.run(call)
            reports += step.reports
            cursor = step.cursor
            if cursor == "0":
                return sorted(set(reports))

    def enqueue(self, *jobs: NewJob, max_ready: int = 1000) -> Enqueued:
        return self.run(producing.enqueue(self.keys, jobs, max_ready=max_ready))

    def cancel(self, *ids: str) -> list[str]:
        return self.run(producing.cancel(self.keys, ids, job_ttl=DAY))

    def dead_retry(self, *ids: str) -> list[str]:
        return self.run(producing.dead_retry(self.keys, ids))

    # To look

    def now(self) -> float:
        seconds, micros = self.raw.time()
        return float(seconds) + micros / 1e6

    def due(self, age: float) -> str:
        """Return the `_due_at` of a job that was first due so many seconds ago."""
        return f"{self.now() - age:.6f}"

    def job(self, job_id: str) -> dict[str, str]:
        fields: dict[str, str] = self.raw.hgetall(self.keys.job(job_id))
        return fields

    def field(self, job_id: str, name: str) -> str | None:
        text: str | None = self.raw.hget(self.keys.job(job_id), name)
        return text

    def status(self, job_id: str) -> str | None:
        return self.field(job_id, "status")

    def ttl(self, job_id: str) -> int:
        return int(self.raw.ttl(self.keys.job(job_id)))

    def where(self, job_id: str) -> list[str]:
        """Name every index that holds the id."""
        keys = self.keys
        found = [
            name
            for name, key in (("ready", keys.ready), ("active", keys.active), ("scheduled", keys.scheduled))
            if self.raw.zscore(key, job_id) is not None
        ]
        held = [r for r in self.raw.smembers(keys.held) if self.raw.zscore(keys.held_for(r), job_id) is not None]
        return found + [f"held:{reason}" for reason in sorted(held)]

    def dead(self) -> list[str]:
        ids: list[str] = self.raw.lrange(self.keys.dead, 0, -1)
        return ids

    def counters(self) -> Counter[str]:
        return Counter({name: int(text) for name, text in self.raw.hgetall(self.keys.counters).items()})

    def snapshot(self) -> dict[str, Any]:
        """Return every key of the queue with what it holds."""
        found: dict[str, Any] = {}
        for key in self.raw.scan_iter(match=self.keys.prefix + "*", count=1000):
            found[key] = _value(self.raw, key)
        return found


def _value(raw: Any, key: str) -> Any:
    kind = raw.type(key)
    if kind == "hash":
        return raw.hgetall(key)
    if kind == "zset":
        return raw.zrange(key, 0, -1, withscores=True)
    if kind == "list":
        return raw.lrange(key, 0, -1)
    if kind == "set":
        return raw.smembers(key)
    return kind


_CHARGES = {"completed": "attempts", "dead": "attempts", "retrying": "attempts", "ready": "interruptions"}


def order(claimed: Claimed, to: str = "completed", worker: str = "w1", **options: Any) -> Settlement:
    """Return the settlement of a run; what is not said is as the daemon would have it."""
    values: dict[str, Any] = {"charge": _CHARGES.get(to, ""), "ttl": DAY, "delay": 60.0}
    if to == "completed":
        values["result"] = '"done"'
    elif to in ("dead", "retrying"):
        values |= {"error": "it broke", "error_type": "ValueError", "history": '{"error":"it broke"}'}
    return Settlement(claimed.id, worker, claimed.fence, to, **{**values, **options})


def lapse_orders(lapses: Sequence[running.Lapse], guard: str = "lapse", to: str = "ready") -> list[Settlement]:
    """Return what the recoverer makes of lapsed leases."""
    return [
        Settlement(lapse.job.id, lapse.worker, lapse.job.fence, to, "crashes", delay=60.0, ttl=DAY, guard=guard)
        for lapse in lapses
    ]
