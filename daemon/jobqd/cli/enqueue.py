"""From the words of `jobq enqueue` to a payload and a time, and advice on the type."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from jobqd.client.spec import unix_time
from jobqd.errors import PayloadError
from jobqd.store.counting import DaemonInfo
from jobqd.store.facts import number
from jobqd.units import shorten

_WORD = re.compile(r"([^=:]+)(:?=)(.*)", re.DOTALL)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def payload_of(words: Sequence[str], text: str | None) -> dict[str, Any]:
    """Return the payload that `key=value` words and a JSON object (or "-": standard input) make together.

    `key=value` is a text, which the handler's type hints convert, or the JSON object or list that it is;
    `key:=JSON` is any JSON value. Raises PayloadError.
    """
    payload = {} if text is None else _object(sys.stdin.read() if text == "-" else text)
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None:
            raise PayloadError(f"{shorten(word)} is not key=value")
        key, sign, value = match.groups()
        if key in payload:
            raise PayloadError(f"{shorten(key)} is given twice: leave one out")
        payload[key] = _container_or_text(value) if sign == "=" else _json(f"{key}:=", value)
    return payload


def _object(text: str) -> dict[str, Any]:
    value = _json("--payload", text)
    if not isinstance(value, dict):
        raise PayloadError(f"--payload: {shorten(text)} is not a JSON object such as " + '{"user_id": 7}')
    return value


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{name} {shorten(text)} is not JSON: {error}") from None


def _container_or_text(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def moment_of(text: str, now: datetime) -> float:
    """Return Unix seconds for what a person writes as a time; without a zone it is `now`'s.

    18:30 (the next one), 2026-01-31 18:30, an ISO time, or Unix seconds. Raises PayloadError.
    """
    if match := _CLOCK.fullmatch(text.strip()):
        hour, minute, second = (int(part or 0) for part in match.groups())
        try:
            moment = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
        except ValueError:
            raise PayloadError(f"at: {shorten(text)} is not a time of day") from None
        return (moment if moment > now else moment + timedelta(days=1)).timestamp()
    if (seconds := number(text)) is not None:
        return unix_time(seconds)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise PayloadError(
            f"at: {shorten(text)} is not a time: write 18:30, 2026-01-31T18:30:00, or Unix seconds"
        ) from None
    return unix_time(moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo))


def advice(job_type: str, daemons: Sequence[DaemonInfo]) -> str | None:
    """Return what a person should know about who runs this type, or None if a running daemon does."""
    if not daemons:
        return "no daemon is running on this queue: the job waits until one starts"
    if any(job_type in daemon.types or not daemon.types for daemon in daemons):
        return None
    known = sorted({name for daemon in daemons for name in daemon.types})
    near = difflib.get_close_matches(job_type, known, n=1, cutoff=0.6)
    meant = f"did you mean {near[0]}?" if near else f"they handle {', '.join(known[:8])}"
    return f"no running daemon handles {job_type!r} ({meant}): the job waits until one does"
