"""The calls of an operator who cleans up: repair, tidy, purge. Each judges anew, and leaves what is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobqd.keys import Keys
from jobqd.scripts import script
from jobqd.store.call import Argument, Call
from jobqd.store.facts import number
from jobqd.store.reading import Reading

REPAIR_MAX = 500
"""Most jobs in one call of repair or tidy."""
PURGE_MAX = 100
"""Most in one purge: each is looked for in the list of dead letters."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """`unnamed`: the set was empty and its name is taken out. `found`: for each id unlisted, unheld, or ""."""

    unnamed: bool
    found: list[str]


def repair(keys: Keys, ids: Sequence[str], *, dry: bool, patience: float, job_ttl: float) -> Call[list[str]]:
    """Put jobs right that could never run, or never be forgotten; with `dry` only tell.

    For each: enqueued (written more than `patience` seconds ago, never put into the queue), restored (was in no
    index), named (held for a reason that was not listed), persisted (a TTL on a job that waits), ttl (none on one
    that ended), or "".
    """
    args: list[Argument] = [keys.job_prefix, int(dry), patience, max(1, int(job_ttl)), *ids]
    return Call(script("repair"), keys.base, args, list)


def tidy(keys: Keys, reason: str, ids: Sequence[str], *, dry: bool) -> Call[Tidied]:
    """Take ids out of one held set, or with reason "" out of the dead letters, that do not belong there."""
    args: list[Argument] = [keys.job_prefix, int(dry), reason, *ids]
    return Call(script("tidy"), keys.base, args, lambda reply: Tidied(bool(reply[0]), list(reply[1])))


def purge(keys: Keys, letters: Sequence[tuple[str, str]]) -> Call[list[str]]:
    """Delete dead letters, given as (id, `finished_at` as it was seen).

    For each: purged, gone, changed (it failed anew meanwhile), or the status of a job that is not dead.
    """
    args: list[Argument] = [keys.job_prefix]
    for letter in letters:
        args += letter
    return Call(script("purge"), keys.base, args, list)


def job_page(keys: Keys, cursor: str) -> Reading[tuple[str, list[str]]]:
    """Name the jobs among the next keys of the database, and the cursor of the next page ("0": this was the last)."""
    pattern = "".join("\\" + char if char in "\\*?[]^" else char for char in keys.job_prefix) + "*"
    (reply,) = yield [("SCAN", cursor, "MATCH", pattern, "COUNT", 2 * REPAIR_MAX, "TYPE", "hash")]
    names = dict.fromkeys(name[len(keys.job_prefix) :] for name in reply[1])
    return str(reply[0]), list(names)


@dataclass(frozen=True, slots=True)
class Letter:
    """A job that is, or was taken for, a dead letter. `finished_at` is the text of the hash; `age` is in seconds."""

    id: str
    status: str
    type: str
    finished_at: str
    age: float | None

    @property
    def dead(self) -> bool:
        """Whether it is a dead letter."""
        return self.status == "failed" and bool(self.finished_at)


def letters(keys: Keys, ids: Sequence[str]) -> Reading[list[Letter]]:
    """Read what tells which of these jobs are dead letters; ids without a hash are left out."""
    kinds = yield [("TIME",), *(("TYPE", keys.job(job_id)) for job_id in ids)]
    now = int(kinds[0][0])
    there = [job_id for job_id, kind in zip(ids, kinds[1:], strict=True) if kind == "hash"]
    if not there:
        return []
    rows = yield [("HMGET", keys.job(job_id), "status", "type", "finished_at") for job_id in there]
    found = []
    for job_id, (status, job_type, finished_at) in zip(there, rows, strict=True):
        ended = number(finished_at)
        age = None if ended is None else max(0.0, now - ended)
        found.append(Letter(job_id, status or "queued", job_type or "", finished_at or "", age))
    return found
