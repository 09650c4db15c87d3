"""How a job is followed to its end. Messages only tell when to look: the job's hash is the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from jobqd.client.procedure import News, Pause, Procedure, T
from jobqd.errors import (
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobqdError,
    ResultTimeout,
    StoreError,
    StoreFault,
)
from jobqd.job import integer
from jobqd.keys import Keys
from jobqd.store.facts import TERMINAL, JobInfo, Progress, decoded, progress_message, progress_of
from jobqd.store.reading import Reading, fields_of, show, status_of
from jobqd.units import format_duration, shorten

LOOK_EVERY = 2.0
"""Seconds after which the hash is read again, whatever was or was not published."""
_OUTAGE_MAX = 60.0
_PROGRESS = ("status", "type", "created_at", "progress", "step", "eta_seconds")
_OUTCOME = ("status", "type", "created_at", "result", "error", "error_type", "attempts")

Clock = Callable[[], float]


def not_found(job_id: str) -> JobNotFound:
    """Return the error for a job that is not there."""
    return JobNotFound(
        f"there is no job {shorten(job_id, 80)}: it was never enqueued here, or its time to live has passed"
    )


def found(job_id: str, reading: Reading[T | None]) -> Procedure[T]:
    """Return what a reading found, or raise JobNotFound."""
    answer = yield from reading
    if answer is None:
        raise not_found(job_id)
    return answer


def status(keys: Keys, job_id: str) -> Procedure[str]:
    """Tell a job's status. Raises JobNotFound."""
    return found(job_id, status_of(keys, job_id))


def info(keys: Keys, job_id: str) -> Procedure[JobInfo]:
    """Tell everything about a job. Raises JobNotFound."""
    return found(job_id, show(keys, job_id))


def progress(keys: Keys, job_id: str) -> Procedure[Progress]:
    """Tell how far a job is. Raises JobNotFound."""
    fields = yield from found(job_id, fields_of(keys, job_id, _PROGRESS))
    return progress_of(fields.get("status") or "queued", fields)


def result(keys: Keys, job_id: str, timeout: float | None, clock: Clock = time.monotonic) -> Procedure[Any]:
    """Wait at most `timeout` seconds for a job's end and return its result.

    Raises JobFailed, JobCancelled, JobNotFound, ResultTimeout; StoreError where waiting cannot help.
    """
    deadline = math.inf if timeout is None else clock() + timeout
    while True:
        trouble = None
        state = "unknown"
        try:
            fields = yield from found(job_id, fields_of(keys, job_id, _OUTCOME))
            state = fields.get("status") or "queued"
            if state in TERMINAL:
                return _outcome(job_id, state, fields)
        except StoreError as error:
            if not _passing(error):
                raise
            trouble = error
        if clock() >= deadline:
            raise _timed_out(job_id, timeout or 0.0, state, trouble)
        yield from _until_news(min(deadline, clock() + LOOK_EVERY), clock)


def _until_news(until: float, clock: Clock) -> Procedure[None]:
    """Return at a message of the job's end, when something may have been missed, or at a moment."""
    while (rest := until - clock()) > 0:
        message = yield News(rest)
        if message is None or progress_message(message).get("status") in TERMINAL:
            return


def _passing(error: StoreError) -> bool:
    return error.transient and error.fault not in (StoreFault.DENIED, StoreFault.TLS)


def _timed_out(job_id: str, timeout: float, state: str, trouble: StoreError | None) -> ResultTimeout:
    after = f"job {job_id} has not ended within {format_duration(timeout)}"
    if trouble is not None:
        return ResultTimeout(f"{after}, or it is not known, because Redis does not answer: {trouble}")
    return ResultTimeout(f"{after}: it is {state}, and goes on")


def _outcome(job_id: str, state: str, fields: Mapping[str, str]) -> Any:
    if state == "failed":
        raise JobFailed(
            job_id, fields.get("error", "no reason is recorded"), fields.get("error_type", ""),
            integer(fields.get("attempts")),
        )  # fmt: skip
    if state == "cancelled":
        raise JobCancelled(f"job {job_id} was cancelled")
    text = fields.get("result")
    value = decoded(text)
    if text is not None and value is text:
        raise JobqdError(f"job {job_id} is completed, but its result is not JSON: {shorten(text)}")
    return value


def next_update(keys: Keys, job_id: str, last: Progress | None, clock: Clock = time.monotonic) -> Procedure[Progress]:
    """Wait until a job's progress differs from `last`, and return it. Raises JobNotFound."""
    if last is None:
        return (yield from progress(keys, job_id))
    give_up = math.inf
    while True:
        message = yield News(LOOK_EVERY)
        now = None if message is None else _told(last, progress_message(message))
        if now is None or now.ended:
            # The message of the end does not carry the last percent; and a missed one carries nothing.
            try:
                now = yield from progress(keys, job_id)
                give_up = math.inf
            except StoreError as error:
                give_up = min(give_up, clock() + _OUTAGE_MAX)
                if not _passing(error) or clock() > give_up:
                    raise
                yield Pause(LOOK_EVERY / 4)
                continue
        if now != last:
            return now


def _told(last: Progress, message: Mapping[str, Any]) -> Progress:
    state = message.get("status")
    if not isinstance(state, str):
        return progress_of("processing", message) if "progress" in message else last
    if "progress" in message or state != last.status:
        return progress_of(state, message)
    return last


def was_cancelled(job_id: str, answer: str) -> bool:
    """Read the answer to a cancel. Raises JobNotFound."""
    if answer == "gone":
        raise not_found(job_id)
    return answer in ("cancelled", "removed")
