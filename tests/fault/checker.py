"""The invariants, each under its letter: what the handlers' ledger says held against what Redis says.

L none lost · O one accepted owner · C counts conserved · F stale refused · T every key of an ended job expires ·
A attempts charged rightly. R (recovered within its bound) and W (the watch over the loop) are asserted by the
scenarios, which know the bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from jobqd.duties.memory import SHORT_TTL
from tests.fault.books import DEAD_TTL, JOB_TTL, TERMINAL, Books
from tests.fault.charges import charged_rightly


def none_lost(books: Books) -> Iterator[str]:
    """L: an acknowledged job is in Redis, ended or in exactly one index; a completed one ran to its end."""
    for job_id in sorted(books.acknowledged):
        job, places = books.jobs.get(job_id), books.places.get(job_id, [])
        if job is None:
            if not books.lossy:
                yield f"{job_id} was acknowledged and is gone"
        elif job.get("status") in TERMINAL:
            if places:
                yield f"{job_id} is {job['status']} and still in {places}"
            if job["status"] == "completed" and not any(run.ended for run in books.runs.get(job_id, [])):
                yield f"{job_id} is completed, but no handler got to its end"
        elif len(places) != 1 and not (books.lossy and half_lost(job)):
            yield f"{job_id} is {job.get('status')} and in {places or 'no index'}"
    failed = sorted(job_id for job_id, job in books.jobs.items() if job.get("status") == "failed")
    if sorted(books.dead) != failed and not books.lossy:
        yield f"the dead letters are {books.dead}, failed are {failed}"


def half_lost(job: Mapping[str, str]) -> bool:
    """Whether Redis kept only the first of the two commands that enqueued a job, if the job is in no index."""
    return job.get("status") == "queued" and "_due_at" not in job


def one_owner(books: Books) -> Iterator[str]:
    """O: the result that was accepted is that of one run, the one that Redis names."""
    for job_id, job in books.jobs.items():
        if job.get("status") != "completed" or "result" not in job:
            continue
        result = json.loads(job["result"])
        names = [run.name for run in books.runs.get(job_id, []) if run.ended is not None]
        times = names.count((result["pid"], result["fence"]))
        if times != 1 and not (books.leases_twice and times):
            yield f"{job_id}: the accepted result {result} is not that of one ended run {names}"


def counts_conserved(books: Books) -> Iterator[str]:
    """C: entered = completed + failed + cancelled + entered jobs that have not ended; each counter is its jobs."""
    count = books.counters.get
    unfinished = sum(job.get("status") not in TERMINAL and "_due_at" in job for job in books.jobs.values())
    ended = sum(count(status, 0) for status in TERMINAL)
    if count("entered", 0) != ended + unfinished:
        yield f"entered {count('entered', 0)}, but {ended} ended and {unfinished} have not: {books.counters}"
    for status in TERMINAL:
        jobs = sum(job.get("status") == status for job in books.jobs.values())
        before = sum(list(ends).count(status) for ends in books.earlier.values())
        if jobs + before != count(status, 0):
            yield f"{jobs} jobs are {status} and {before} were, the counter says {count(status, 0)}"
    if books.earlier or books.lossy:
        return  # who begins anew forgets what was charged before
    crashes, interruptions = books.charged("crashes"), books.charged("interruptions")
    if crashes != count("lapsed", 0) + count("crashed", 0):
        yield f"jobs were charged {crashes} crashes, the counters say {books.counters}"
    if interruptions != count("interrupted", 0):
        yield f"jobs were charged {interruptions} interruptions, the counters say {books.counters}"
    yield from _leases(books)


def _leases(books: Books) -> Iterator[str]:
    """Leases that neither were charged nor snoozed were handed back before they began, which is counted."""
    charged = sum(books.charged(name) for name in ("attempts", "crashes", "interruptions"))
    left = sum(books.number(job_id, "fence") for job_id in books.jobs) - charged - books.counters.get("snoozed", 0)
    # The first lapse of a job sends it straight back, the first crash of a suspect's process does not.
    crashed = sum(books.number(job_id, "crashes") > 0 for job_id in books.jobs)
    back = books.counters.get("returned", 0) - books.charged("interruptions") - crashed
    ended = sum(job.get("status") == "cancelled" for job in books.jobs.values())
    running = sum("active" in places for places in books.places.values())
    if not back <= left <= back + books.counters.get("crashed", 0) + ended + running:
        yield f"{left} leases were charged to nobody, {back} were handed back before they began: {books.counters}"


def stale_refused(books: Books) -> Iterator[str]:
    """F: what was accepted comes from the last lease, result, progress and checkpoint; none was given twice."""
    for job_id, job in books.jobs.items():
        names = [run.name for run in books.runs.get(job_id, [])]
        fences = [fence for _, fence in names]
        if len(set(names)) != len(names) and not books.leases_twice:
            yield f"{job_id}: one lease began two runs: {names}"
        if len(set(fences)) != len(fences) and not books.lossy:
            yield f"{job_id}: one fence began two runs: {fences}"
        if job.get("status") != "completed" or "result" not in job:
            continue
        accepted = json.loads(job["result"])
        if str(accepted["fence"]) != job["fence"]:
            yield f"{job_id}: the result of fence {accepted['fence']} was accepted, the lease was at {job['fence']}"
        if job.get("type") == "marks" and not books.lossy:
            yield from _stale_marks(job_id, job, accepted)


def _stale_marks(job_id: str, job: dict[str, str], accepted: dict[str, int]) -> Iterator[str]:
    """Name what another run than that of the accepted result has written; see the handler `marks`."""
    if job.get("step") != f"{accepted['pid']}:{accepted['fence']}":
        yield f"{job_id}: the progress is that of run {job.get('step')}, the result that of {accepted}"
    if json.loads(job.get("checkpoint", "null")) != accepted:
        yield f"{job_id}: the checkpoint is that of run {job.get('checkpoint')}, the result that of {accepted}"


def keys_expire(books: Books) -> Iterator[str]:
    """T: ended jobs have the TTL that the settings name, others have none, and what daemons leave behind expires."""
    for job_id, job in books.jobs.items():
        status, ttl = job.get("status"), books.ttls[job_id]
        if status not in TERMINAL:
            if ttl >= 0:
                yield f"{job_id} is {status} with TTL {ttl}"
            continue
        most = DEAD_TTL if status == "failed" else JOB_TTL
        least = SHORT_TTL if books.tight and status == "completed" else most
        age = books.now - float(job.get("finished_at", books.now))
        # TTL is rounded to a second, and one that was missed is set later.
        if not least - age - 2 <= ttl <= most:
            yield f"{job_id} is {status} for {age:.1f} s with TTL {ttl}, kept for {most} s in all"
    for key in books.keys_without_end:
        yield f"{key} has no TTL"


INVARIANTS: dict[str, Callable[[Books], Iterator[str]]] = {
    "L": none_lost,
    "O": one_owner,
    "C": counts_conserved,
    "F": stale_refused,
    "T": keys_expire,
    "A": charged_rightly,
}


def violations(books: Books) -> list[str]:
    """Return every violation, each beginning with the letter of its invariant."""
    return [f"{letter}: {text}" for letter, check in INVARIANTS.items() for text in check(books)]
