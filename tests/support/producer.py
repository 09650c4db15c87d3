"""A producer and an observer with nothing but redis-py: two commands to enqueue, plain reads to look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from jobqd.keys import Keys
from tests.redis_server import RedisServer
from tests.support.waiting import PATIENCE, eventually

ENDED = ("completed", "failed", "cancelled")


class Producer:
    """Writes jobs as a program in any language does, and reads what became of them."""

    def __init__(self, server: RedisServer, keys: Keys) -> None:
        self.redis = redis.Redis(
            unix_socket_path=str(server.socket), decode_responses=True, encoding_errors="surrogateescape"
        )
        self.keys = keys

    def put(self, job_id: str, job_type: str, score: float = 10, **fields: object) -> str:
        """Enqueue by HSET and ZADD; returns the id."""
        texts = {name: str(value) for name, value in fields.items()}
        created = f"{time.time():.6f}"
        self.redis.hset(
            self.keys.job(job_id), mapping={"status": "queued", "created_at": created, "type": job_type, **texts}
        )
        self.redis.zadd(self.keys.ready, {job_id: score})
        return job_id

    def job(self, job_id: str) -> dict[str, str]:
        """Return a job's hash."""
        return self.redis.hgetall(self.keys.job(job_id))

    def field(self, job_id: str, name: str) -> str | None:
        return self.redis.hget(self.keys.job(job_id), name)

    def status(self, job_id: str) -> str | None:
        return self.field(job_id, "status")

    def wait(self, job_id: str, *statuses: str, timeout: float = PATIENCE) -> dict[str, str]:
        """Return a job's hash once its status is one of these (any that is final, if none is named)."""
        wanted = statuses or ENDED

        def look() -> dict[str, str] | None:
            job = self.job(job_id)
            return job if job.get("status") in wanted else None

        return eventually(look, f"{job_id} {'/'.join(wanted)}, it is {self.job(job_id)}", timeout)

    def wait_field(self, job_id: str, name: str, value: str) -> dict[str, str]:
        """Return a job's hash once a field has this value."""
        eventually(lambda: self.field(job_id, name) == value, f"{job_id} {name}={value}, it is {self.job(job_id)}")
        return self.job(job_id)

    def run(self, job_id: str, job_type: str, **fields: object) -> dict[str, str]:
        """Enqueue a job and return its hash when it has ended."""
        return self.wait(self.put(job_id, job_type, **fields))

    def close(self) -> None:
        self.redis.close()


@contextmanager
def producer(server: RedisServer, keys: Keys) -> Iterator[Producer]:
    """A producer whose connection is closed at the end."""
    made = Producer(server, keys)
    try:
        yield made
    finally:
        made.close()
