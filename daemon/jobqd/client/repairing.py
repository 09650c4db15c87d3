"""What an operator does to a whole queue: look for what is wrong with it and put it right, delete dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobqd.client.procedure import Procedure, T
from jobqd.client.producing import dead_ids
from jobqd.keys import Keys
from jobqd.store import repairing
from jobqd.store.reading import held_reasons
from jobqd.store.repairing import PURGE_MAX, REPAIR_MAX, Letter

PATIENCE = 60.0
"""Seconds that a raw enqueue is given between its HSET and its ZADD, unless it is said otherwise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is, or was, wrong: `what` is a word of repair or tidy, or "unnamed" for an empty held set."""

    what: str
    id: str


def repair(keys: Keys, *, dry: bool, patience: float, job_ttl: float) -> Procedure[list[Finding]]:
    """Look through all jobs, dead letters and held sets, and put right what is wrong; with `dry` only tell.

    `patience` and `job_ttl` are in seconds. Each step can be repeated, and runs beside daemons and producers.
    """
    findings: list[Finding] = []
    cursor = ""
    while cursor != "0":
        cursor, ids = yield from repairing.job_page(keys, cursor or "0")
        for page in _pages(ids, REPAIR_MAX):
            answers = yield repairing.repair(keys, page, dry=dry, patience=patience, job_ttl=job_ttl)
            findings += _findings(page, answers)
    findings += yield from _tidied(keys, keys.dead, "", dry=dry)
    for reason in (yield from held_reasons(keys)):
        findings += yield from _tidied(keys, keys.held_for(reason), reason, dry=dry)
    # SCAN may name a key twice.
    return list(dict.fromkeys(findings))


def _tidied(keys: Keys, key: str, reason: str, *, dry: bool) -> Procedure[list[Finding]]:
    """Tidy one list or held set; `key` is read page by page, and what was taken out of a page moves the next one up."""
    (kind,) = yield [("TYPE", key)]
    if kind not in ("list" if reason == "" else "zset", "none"):
        return []
    findings: list[Finding] = []
    start = 0
    while True:
        ids: list[str] = []
        if kind != "none" and reason != "missing":
            command = "LRANGE" if kind == "list" else "ZRANGE"
            (ids,) = yield [(command, key, start, start + REPAIR_MAX - 1)]
        tidied = yield repairing.tidy(keys, reason, ids, dry=dry)
        here = _findings(ids, tidied.found)
        findings += here
        if tidied.unnamed:
            findings.append(Finding("unnamed", reason))
        if len(ids) < REPAIR_MAX:
            return findings
        start += REPAIR_MAX - (0 if dry else len(here))


def _findings(ids: Sequence[str], answers: Sequence[str]) -> list[Finding]:
    return [Finding(what, job_id) for job_id, what in zip(ids, answers, strict=True) if what]


def letters(keys: Keys, ids: Sequence[str] | None) -> Procedure[list[Letter]]:
    """Read these jobs, or with None all dead letters, newest first; those that are not there are left out."""
    if ids is None:
        ids = yield from dead_ids(keys)
    found: list[Letter] = []
    for page in _pages(list(dict.fromkeys(ids)), REPAIR_MAX):
        found += yield from repairing.letters(keys, page)
    return found


def purge(keys: Keys, doomed: Sequence[Letter]) -> Procedure[dict[str, str]]:
    """Delete dead letters as they were read, the oldest first.

    For each: purged, gone, changed (it failed anew, or is on its way back), or the status it has now.
    """
    answers: dict[str, str] = {}
    for page in _pages(list(reversed(doomed)), PURGE_MAX):
        told = yield repairing.purge(keys, [(letter.id, letter.finished_at) for letter in page])
        answers |= {letter.id: word for letter, word in zip(page, told, strict=True)}
    return answers


def _pages(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
