"""The demonstration's handlers, meant to be read: each shows one thing that jobqd does for a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from jobqd import Handlers, Job, Queue, Retry, Snooze, SyncJob
from jobqd.demo import films
from jobqd.demo.samples import enqueue_samples

handlers = Handlers()


@handlers.lifespan
async def demonstration() -> AsyncIterator[Queue]:
    """Put the sample jobs into the queue when the daemon starts; the queue is `job.state` of every job."""
    async with Queue.from_env() as queue:
        await enqueue_samples(queue)
        yield queue


@handlers.job("video_render", concurrency=2, timeout="30m")
async def video_render(job: Job, source: str = "", width: int = 640, seconds: float = 6) -> dict[str, Any]:
    """Make a film with ffmpeg: `source` transcoded, or `seconds` of a fractal. At most two at a time."""
    films.check(source, width, seconds)
    target = films.target_file(job.id, ".mp4")
    unfinished = target.with_suffix(".part.mp4")
    command = await asyncio.to_thread(films.film_command, source, width, seconds, unfinished)
    meter = films.Meter(None if source else seconds)
    try:
        async for line in job.exec(*command, stderr="merge"):
            if meter.read(line):
                await job.progress(meter.percent, step="encoding", eta_seconds=meter.eta_seconds)
        unfinished.replace(target)  # whoever finds the film finds all of it
    finally:
        unfinished.unlink(missing_ok=True)
    return {"file": str(target), "seconds": round(meter.done, 2), "size": target.stat().st_size}


@handlers.job
def thumbnail(job: SyncJob, source: str = "", width: int = 320) -> dict[str, Any]:
    """Make a picture; a plain `def` runs in a thread, where blocking calls are welcome."""
    films.check(source, width, 1)
    target = films.target_file(job.id, ".jpg")
    job.exec(*films.frame_command(source, width, target)).run()
    job.progress(100, step="written")
    return {"file": str(target), "size": target.stat().st_size}


@handlers.job
async def send_mail(to: str, subject: str) -> dict[str, str]:
    """Send a mail; the `job` parameter may be left out, and this stays a function for a unit test."""
    await asyncio.sleep(0.3)  # a mail server takes its time
    return {"to": to, "subject": subject}


@handlers.job
async def flaky(job: Job) -> str:
    """Fail twice, then succeed: any exception is retried, Retry says when."""
    if job.attempt < 3:
        raise Retry("the weather service is busy", delay="2s")
    return f"sunny, at attempt {job.attempt}"


@handlers.job(max_attempts=2, retry_delay="1s")
async def broken(customer: int = 0) -> None:
    """Fail for ever: after `max_attempts` the job is in the dead letters, with this error."""
    raise LookupError(f"there is no customer {customer}")


@handlers.job
async def report(job: Job, pages: int = 20) -> dict[str, int]:
    """Long work in steps: a retry, a deploy or a crash goes on from the last checkpoint."""
    first = job.checkpoint["page"] if job.checkpoint else 0
    for page in range(first, pages):
        if job.stopping.is_set():
            raise Snooze("1s", "the daemon stops: the next one goes on from here")
        if job.attempt == 1 and page == pages // 2:
            raise Retry("the printer ran out of paper", delay="1s")
        await asyncio.sleep(0.1)
        await job.save_checkpoint({"page": page + 1})
        await job.progress(100 * (page + 1) / pages, step=f"page {page + 1}")
    return {"pages": pages, "continued_from": first}
