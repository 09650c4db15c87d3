"""For how long the jobs of a sorted set have waited, told by a few looks however many jobs are in it.

Within one priority the scores of our clients and of promoted jobs order by time, so the first of them is the oldest.
A plain score tells no time: of the jobs that have one, the first ten of a priority are looked at, and `created_at`
stands in where nothing has happened to them yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from jobqd.job import Claimed
from jobqd.keys import Keys
from jobqd.store.call import Argument
from jobqd.store.facts import number
from jobqd.store.reading import Reading

T = TypeVar("T")

_PRIORITIES = 20
"""So many of the most urgent priorities are looked at, and as many of the least urgent, which starve first."""
_PLAIN = 10
_SCORE_MAX = 1e15
# The bounds of `Claimed.waited`: a fraction tells a time of the last three years or so.
_LONGEST = 1e8
_FIELDS = ("created_at", "attempts", "crashes", "interruptions")


def together(readings: Sequence[Reading[T]]) -> Reading[list[T]]:
    """Make several readings at once: what they ask for in each step goes out as one batch."""
    results: dict[int, T] = {}
    replies: dict[int, Any] = dict.fromkeys(range(len(readings)))
    while replies:
        asked = {}
        for at, reply in replies.items():
            try:
                asked[at] = readings[at].send(reply)
            except StopIteration as done:
                results[at] = done.value
        answers = iter((yield [command for commands in asked.values() for command in commands]) if asked else ())
        replies = {at: [next(answers) for _ in commands] for at, commands in asked.items()}
    return [results[at] for at in range(len(readings))]


def longest_wait(keys: Keys, index: str, now: float) -> Reading[float | None]:
    """Return for how many seconds the job of a sorted set that is ready longest has been; None if nothing tells.

    `index` must be a sorted set with scores as in the ready set; `now` is Redis's clock in Unix seconds.
    """
    priorities = yield from _priorities(index)
    if not priorities:
        return None
    commands: list[Sequence[Argument]] = []
    for priority in priorities:
        dated = f"{priority + (now - _LONGEST) / 1e10:.17g}"
        commands += [
            ("ZRANGEBYSCORE", index, dated, f"({priority + 1}", "WITHSCORES", "LIMIT", 0, 1),
            ("ZRANGEBYSCORE", index, priority, f"({dated}", "LIMIT", 0, _PLAIN),
        ]
    replies = yield commands
    scores = [number(reply[1]) for reply in replies[::2] if reply]
    waits = [_waited(score, now, {}) for score in scores if score is not None]
    plain = [job_id for reply in replies[1::2] for job_id in reply]
    waits += (yield from _waits_of_plain(keys, plain, now)) if plain else []
    return max((wait for wait in waits if wait is not None), default=None)


def _waits_of_plain(keys: Keys, ids: Sequence[str], now: float) -> Reading[list[float | None]]:
    kinds = yield [("TYPE", keys.job(job_id)) for job_id in ids]
    there = [job_id for job_id, kind in zip(ids, kinds, strict=True) if kind == "hash"]
    if not there:
        return []
    rows = yield [("HMGET", keys.job(job_id), *_FIELDS) for job_id in there]
    fields = [{name: text for name, text in zip(_FIELDS, row, strict=True) if text is not None} for row in rows]
    return [_waited(0.0, now, known) for known in fields]


def _waited(score: float, now: float, fields: dict[str, str]) -> float | None:
    """The rule is that of a job that is claimed at this moment, but a second more or less is nothing here."""
    return Claimed("", 0, score, now, fields).waited(roughly=True)


def _priorities(index: str) -> Reading[list[int]]:
    """Hop from one priority to the next, from the most urgent on; where there are many, from the other end too."""
    first: list[int] = []
    at = yield from _next(index, f"{-_SCORE_MAX:.0f}", f"{_SCORE_MAX:.0f}")
    while at is not None and len(first) < _PRIORITIES:
        first.append(at)
        at = yield from _next(index, str(at + 1), f"{_SCORE_MAX:.0f}")
    last: list[int] = []
    if at is not None:
        at = yield from _next(index, f"{_SCORE_MAX:.0f}", str(first[-1] + 1), "REV")
        while at is not None and len(last) < _PRIORITIES:
            last.append(at)
            at = yield from _next(index, f"({at}", str(first[-1] + 1), "REV")
    return first + last


def _next(index: str, start: str, stop: str, *reverse: str) -> Reading[int | None]:
    command: list[Argument] = ["ZRANGE", index, start, stop, "BYSCORE", *reverse, "LIMIT", 0, 1, "WITHSCORES"]
    (found,) = yield [command]
    score = number(found[1]) if found else None
    return None if score is None else math.floor(score)
