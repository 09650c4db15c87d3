"""The daemon's parts, put together as the daemon does it, in the test's own process and none of them started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from jobqd.app.parts import Parts
from jobqd.clock import SystemClock, World
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.keys import Keys, Seat
from jobqd.settings import Settings
from jobqd.store import Target
from tests.support.log import RecordingLog


@asynccontextmanager
async def assembled(
    target: Target, keys: Keys, handlers: Handlers, *, clock: Any = None, log: RecordingLog | None = None,
    worker: str = "worker-1", lease: float = 15.0, **settings: Any,
) -> AsyncIterator[Parts]:  # fmt: skip
    """Parts on one Redis; all their connections are closed at the end."""
    world = World(clock or SystemClock(), lambda: 0.5, log or RecordingLog())
    guardian = Guardian()
    parts = Parts(Settings(lease=lease, **settings), handlers, target, Seat(keys, worker, lease), world, guardian)
    try:
        yield parts
    finally:
        parts.services.threads.shutdown(wait=False, cancel_futures=True)
        await parts.close()
        parts.heartbeat.close()
        guardian.close()


async def enqueue(
    raw: redis.asyncio.Redis, keys: Keys, job_id: str, job_type: str, score: float = 10, **more: Any
) -> None:
    """Enqueue as a raw producer does."""
    await raw.hset(keys.job(job_id), mapping={"status": "queued", "type": job_type, **more})
    await raw.zadd(keys.ready, {job_id: score})
