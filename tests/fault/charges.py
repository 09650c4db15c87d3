"""A, attempts charged rightly: each run that began is an attempt, a crash, an interruption, or a snooze."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fault.books import Books

LOST = ("LeaseLapsed", "Crashed")
_HISTORY = 10
"""How many errors a job remembers."""


def charged_rightly(books: Books) -> Iterator[str]:
    """A: each run of each job is charged as what it was."""
    for job_id in books.jobs:
        yield from _job(books, job_id)
        yield from _history(books, job_id)


def _job(books: Books, job_id: str) -> Iterator[str]:
    """Only ends of a handler's own are attempts; every other run that began is a crash or an interruption."""
    job = books.jobs[job_id]
    attempts, crashes, interruptions = (books.number(job_id, n) for n in ("attempts", "crashes", "interruptions"))
    status, began = job.get("status"), len({run.name for run in books.runs.get(job_id, [])})
    if status == "completed" and attempts != 1 and job_id not in books.expected_to_fail:
        yield f"{job_id} completed in its first own end, charged {attempts} attempts"
    if status == "failed" and job_id not in books.expected_to_fail:
        yield f"{job_id} failed: {job.get('error')}"
    charged, leases = attempts + crashes + interruptions, books.number(job_id, "fence")
    if books.lossy:
        return
    if charged > leases:
        yield f"{job_id}: {charged} charges for {leases} leases"
    # A cancel is charged to nobody, and who begins anew forgets what was.
    counted = status in ("completed", "failed") and job_id not in books.earlier
    if counted and began > charged + (job_id in books.snoozed):
        yield f"{job_id}: {began} runs began, charged {attempts=} {crashes=} {interruptions=}"


def _history(books: Books, job_id: str) -> Iterator[str]:
    """What a job remembers of its errors tells a crash from an end of its own, and neither is an interruption."""
    errors = books.history(job_id)
    if len(errors) >= _HISTORY or job_id in books.earlier:
        return
    lost = sum(error in LOST for error in errors)
    own = len(errors) - lost + (books.jobs[job_id].get("status") == "completed")
    if lost != books.number(job_id, "crashes"):
        yield f"{job_id} remembers {errors}, charged {books.number(job_id, 'crashes')} crashes"
    if own != books.number(job_id, "attempts"):
        yield f"{job_id} ended {own} times by itself, charged {books.number(job_id, 'attempts')} attempts"
