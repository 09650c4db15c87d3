"""What can be enqueued, and every check before it is sent."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from jobqd.client.payload import encode_payload
from jobqd.errors import PayloadError
from jobqd.keys import TYPE_MAX, is_type
from jobqd.store.call import Argument
from jobqd.store.producing import NewJob
from jobqd.units import parse_duration, shorten

ID_MAX = 256
PRIORITY_MAX = 1_000_000_000
_ATTEMPTS_MAX = 1_000_000
_DELAY_MAX = 100 * 366 * 86400.0
_TIME_MAX = 1e11
"""Beyond this a number is milliseconds."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class TypedJob(Protocol):
    """A job type with its payload, such as `render.args(...)` of a handler returns."""

    @property
    def type(self) -> str:
        """The job type."""

    @property
    def payload(self) -> Mapping[str, Any]:
        """Its arguments."""


DEFAULT_PRIORITY = 10
"""Between urgent jobs and those that can wait: 0 would put every job that names none ahead of the others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What our clients keep to: `max_payload` in bytes, `max_ready` jobs.

    `job_ttl` in seconds for cancelled jobs.
    """

    max_payload: int = 2**20
    max_ready: int = 10_000_000
    job_ttl: float = 86400.0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job for `enqueue_many`, with the parameters of `enqueue`."""

    type: str | TypedJob
    payload: Mapping[str, Any] | None = None
    priority: int = DEFAULT_PRIORITY
    delay: float | str | None = None
    at: datetime | float | str | None = None
    id: str | UUID | None = None
    max_attempts: int | None = None
    timeout: float | str | None = None


def as_spec(job: JobSpec | TypedJob) -> JobSpec:
    """Return a job to enqueue as a spec."""
    return job if isinstance(job, JobSpec) else JobSpec(job)


def new_job(spec: JobSpec, new_id: str, limits: Limits) -> NewJob:
    """Return the job to be written; `new_id` is used where the spec names none. Raises PayloadError."""
    job_type, payload = _type_and_payload(spec)
    if spec.delay is not None and spec.at is not None:
        raise PayloadError("delay and at: give only one of them")
    fields: dict[str, Argument] = {"type": _job_type(job_type)}
    if payload:
        fields["payload"] = encode_payload(payload, limits.max_payload)
    if spec.max_attempts is not None:
        fields["max_attempts"] = _whole("max_attempts", spec.max_attempts, 1, _ATTEMPTS_MAX)
    if spec.timeout is not None:
        seconds = duration("timeout", spec.timeout)
        if not seconds:
            raise PayloadError("timeout: 0 would end every run at once; give seconds or a text such as '90s'")
        fields["timeout"] = f"{seconds:.15g}"
    return NewJob(
        id=new_id if spec.id is None else job_id(spec.id),
        priority=_whole("priority", spec.priority, -PRIORITY_MAX, PRIORITY_MAX),
        fields=fields,
        delay=_delay(spec.delay),
        at=None if spec.at is None else unix_time(spec.at),
    )


def job_id(value: str | UUID) -> str:
    """Return an id that a new job may have. Raises PayloadError."""
    return _name("id", str(value) if isinstance(value, UUID) else value, ID_MAX)


def known_id(value: str | UUID) -> str:
    """Return the id of a job that may be there: a raw producer's may be any bytes but none. Raises PayloadError."""
    text = str(value) if isinstance(value, UUID) else value
    text = _text("id", text)
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PayloadError(f"id: {shorten(value)} cannot be written as UTF-8; use valid characters") from None
    return text


def unix_time(value: datetime | float | str) -> float:
    """Return Unix seconds for a datetime with a time zone, such a time as ISO text, or Unix seconds.

    Raises PayloadError.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise PayloadError(
                f"at: {shorten(value)} is not a time: write it as 2026-01-31T18:30:00+01:00, or give Unix seconds"
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PayloadError(f"at: {value.isoformat()} has no time zone: add one, as in datetime.now(timezone.utc)")
        return max(0.0, value.timestamp())
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PayloadError(f"at: {shorten(value)} is not a time: give a datetime, an ISO text or Unix seconds")
    if value > _TIME_MAX:
        raise PayloadError(f"at: {shorten(value)} looks like milliseconds: give Unix seconds")
    return float(value)


def _type_and_payload(spec: JobSpec) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec.type, str):
        return spec.type, {} if spec.payload is None else spec.payload
    if not hasattr(spec.type, "payload") or not isinstance(getattr(spec.type, "type", None), str):
        raise PayloadError(f"type: {shorten(spec.type)} is not a job type: give a text, or handler.args(...)")
    if spec.payload is not None:
        raise PayloadError("payload: handler.args(...) holds it already; leave it out")
    return spec.type.type, spec.type.payload


def _job_type(value: str) -> str:
    if not is_type(value):
        raise PayloadError(
            f"type: {shorten(value)} is not a job type: use 1 to {TYPE_MAX} printable characters, no spaces"
        )
    return value


def _name(field: str, value: Any, longest: int) -> str:
    text = _text(field, value)
    if len(text) > longest:
        raise PayloadError(f"{field}: {shorten(value)} has {len(text)} characters; {longest} is the most")
    if _CONTROL.search(text):
        raise PayloadError(f"{field}: {shorten(value)} holds a control character; take it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PayloadError(f"{field}: {shorten(value)} cannot be written as UTF-8; use valid characters") from None
    return text


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        remedy = f': write "{value}"' if type(value) is int else ""
        raise PayloadError(f"{field}: {shorten(value)} is not a text{remedy}")
    if not value:
        raise PayloadError(f"{field}: {shorten(value)} is empty: give at least one character")
    return value


def _whole(field: str, value: Any, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise PayloadError(f"{field}: {shorten(value)} is not an integer")
    if not least <= number <= most:
        raise PayloadError(f"{field}: {shorten(value)} is outside {least} to {most}")
    return number


def duration(field: str, value: Any) -> float:
    """Return seconds for a duration. Raises PayloadError that names the parameter."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PayloadError(f"{field}: {error}") from None


def _delay(value: float | str | None) -> float | None:
    if value is None:
        return None
    seconds = duration("delay", value)
    if seconds > _DELAY_MAX:
        raise PayloadError(f"delay: {shorten(value)} is more than a hundred years; give less")
    return seconds or None
