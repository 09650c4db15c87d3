"""What the commands of `jobq` do; each returns its exit status."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from jobqd.cli.documents import dumps, job_document, stats_document
from jobqd.cli.enqueue import advice, moment_of, payload_of
from jobqd.cli.render import Served, job_page, job_table, served_by, stats_page
from jobqd.cli.session import Site, open_queue, warn
from jobqd.cli.text import Paper, answer, line, shown_id
from jobqd.client.spec import known_id
from jobqd.client.sync import SyncJobHandle, SyncQueue
from jobqd.errors import PayloadError
from jobqd.store import counting, reading
from jobqd.store.facts import JobInfo

_WATCH_PAUSE = 1.0


def enqueue(  # noqa: PLR0913 - one for each option of the command line
    site: Site,
    job_type: str,
    words: Sequence[str],
    *,
    payload: str | None,
    priority: int,
    delay: str | None,
    at: str | None,
    new_id: str | None,
    max_attempts: int | None,
    timeout: str | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Enqueue one job, tell its id, and follow it if asked."""
    arguments = payload_of(words, payload)
    moment = None if at is None else moment_of(at, datetime.now().astimezone())
    with open_queue(site) as queue:
        advised = advice(job_type, queue.run(counting.daemons(queue.keys)))
        handle = queue.enqueue(
            job_type, arguments, priority=priority, delay=delay, at=moment, id=new_id, max_attempts=max_attempts,
            timeout=timeout,
        )  # fmt: skip
    if advised:
        warn(advised)
    _tell_enqueued(handle, as_json=as_json, lines=follow)
    return watch(site, [handle.id], as_json=as_json) if follow else 0


def _tell_enqueued(handle: SyncJobHandle, *, as_json: bool, lines: bool) -> None:
    if as_json:
        document = {"id": handle.id, "created": handle.created, "existing_status": handle.existing_status}
        answer(dumps(document, lines=lines))
        return
    if not handle.created:
        warn(f"job {shown_id(handle.id)} exists already ({line(handle.existing_status)}): nothing was enqueued")
    answer(shown_id(handle.id))


def show(site: Site, id: str, *, as_json: bool) -> int:
    """Show everything about one job."""
    with open_queue(site) as queue:
        job = queue.job(id).info()
        served = _served(queue, [job])
    answer(dumps(job_document(job)) if as_json else job_page(Paper.of(sys.stdout), job, served))
    return 0


def _served(queue: SyncQueue, jobs: Sequence[JobInfo]) -> Served:
    """Return the types that running daemons handle, if that tells something about one of these jobs."""
    return served_by(queue.run(counting.daemons(queue.keys))) if any(job.held for job in jobs) else None


def watch(site: Site, ids: Sequence[str], *, as_json: bool) -> int:
    """Follow jobs until all have ended."""
    from jobqd.cli import watch as watching  # noqa: PLC0415 - asyncio and the live display are for this command alone

    return watching.watch(site, [known_id(id) for id in ids], as_json=as_json)


def list_jobs(site: Site, *, status: str | None, job_type: str | None, limit: int, as_json: bool) -> int:
    """List jobs."""
    if status is not None and status not in reading.STATUSES:
        raise PayloadError(f"--status: {line(status)} is none of {', '.join(reading.STATUSES)}")
    with open_queue(site) as queue:
        found = queue.run(reading.listing(queue.keys, status=status, job_type=job_type, limit=limit))
        served = _served(queue, found.jobs)
    if as_json:
        answer(dumps({"jobs": [job_document(job) for job in found.jobs], "more": found.more}))
    elif not found.jobs:
        warn("there are no such jobs" if status or job_type else "there are no jobs")
    else:
        answer(job_table(Paper.of(sys.stdout), found.jobs, served))
    if found.more and not as_json:
        warn("there are more; see --limit, --status and --type")
    return 0


def stats(site: Site, *, follow: bool, as_json: bool) -> int:
    """Show the queue as a whole, once or every second."""
    with open_queue(site) as queue:
        if not follow:
            now = queue.run(counting.stats(queue.keys))
            answer(dumps(stats_document(now)) if as_json else _stats_page(queue, now))
            return 0
        with contextlib.suppress(KeyboardInterrupt):
            _follow_stats(queue, as_json=as_json)
    return 0


def _stats_page(queue: SyncQueue, stats: counting.Stats) -> str:
    return stats_page(Paper.of(sys.stdout), stats, queue.keys.ready)


def _follow_stats(queue: SyncQueue, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        while True:
            now = queue.run(counting.stats(queue.keys))
            answer(dumps(stats_document(now), lines=True) if as_json else _stats_page(queue, now) + "\n")
            time.sleep(_WATCH_PAUSE)
    from rich.live import Live  # noqa: PLC0415 - for this command alone
    from rich.text import Text  # noqa: PLC0415

    with Live(auto_refresh=False) as live:
        while True:
            page = _stats_page(queue, queue.run(counting.stats(queue.keys)))
            live.update(Text.from_ansi(page), refresh=True)
            time.sleep(_WATCH_PAUSE)


def cancel(site: Site, ids: Sequence[str], *, as_json: bool) -> int:
    """End jobs at once; 1 if one was not there or had ended by itself."""
    with open_queue(site) as queue:
        answers = queue.cancel(ids)
    words = {
        "cancelled": "cancelled; it was running and is being stopped",
        "removed": "cancelled before it ran",
        "already": "was cancelled before",
        "gone": "not found",
    }
    tell_each(answers, {name: words.get(told, f"had ended before: {told}") for name, told in answers.items()}, as_json)
    return 0 if set(answers.values()) <= {"cancelled", "removed", "already"} else 1


def tell_each(answers: dict[str, str], words: dict[str, str], as_json: bool) -> None:
    """Answer with what became of each id: `answers` in JSON, else `words`."""
    if as_json:
        answer(dumps(answers))
        return
    width = max((len(shown_id(name)) for name in words), default=0)
    for name, text in words.items():
        answer(f"{shown_id(name):<{width}}  {line(text)}")
