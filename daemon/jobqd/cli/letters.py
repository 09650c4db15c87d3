"""What the commands of `jobq dead` do; each returns its exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from jobqd.cli.commands import tell_each
from jobqd.cli.documents import dumps, job_document
from jobqd.cli.render import job_page
from jobqd.cli.session import Site, open_queue, warn
from jobqd.cli.text import Paper, ago, answer, count, line, plural, shown_id
from jobqd.client import repairing
from jobqd.client.producing import dead_ids
from jobqd.client.spec import known_id
from jobqd.client.sync import SyncQueue
from jobqd.errors import PayloadError
from jobqd.store.repairing import Letter
from jobqd.units import parse_duration

_LISTED = 20
_RETRIED = {"retried": "back in the queue", "gone": "not found"}
_PURGED = {
    "purged": "deleted", "doomed": "would be deleted", "gone": "not found",
    "changed": "left: it failed anew meanwhile, or is on its way back", "younger": "left: it failed more lately",
    "other": "left: it is of another type",
}  # fmt: skip


def show(site: Site, id: str, *, as_json: bool) -> int:
    """Show everything about one dead letter; 1 if the job is none."""
    with open_queue(site) as queue:
        job = queue.job(id).info()
    if job.status != "failed":
        warn(f"job {shown_id(job.id)} is no dead letter: it is {line(job.status)}; see jobq show")
        return 1
    if as_json:
        answer(dumps(job_document(job)))
        return 0
    answer(job_page(Paper.of(sys.stdout), job))
    warn(f"to run it again: jobq dead retry {shlex.quote(shown_id(job.id))}")
    return 0


def retry(site: Site, ids: Sequence[str], *, everything: bool, as_json: bool) -> int:
    """Give dead letters a new chance; 1 if one is not dead or not there."""
    if bool(ids) == everything:
        raise PayloadError("give the ids of dead letters, or --all")
    with open_queue(site) as queue:
        chosen: Sequence[Any] = queue.run(dead_ids(queue.keys)) if everything else ids
        answers = queue.retry_dead(chosen)
    retried = sum(told == "retried" for told in answers.values())
    if everything and not as_json:
        answer(f"{count(retried)} retried")
        return 0
    tell_each(answers, {name: _RETRIED.get(told, f"not dead: {told}") for name, told in answers.items()}, as_json)
    return 0 if everything or retried == len(answers) else 1


def purge(
    site: Site,
    ids: Sequence[str],
    *,
    older_than: str | None,
    job_type: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Delete dead letters for good, or tell which ones; 1 if one that was named stays, or without `yes`."""
    if everything and (ids or older_than or job_type):
        raise PayloadError("--all stands alone: leave it out, or the ids, --older-than and --type")
    if not (everything or ids or older_than or job_type):
        raise PayloadError("give the ids of dead letters, --older-than, --type, or --all")
    age = _age(older_than)
    names = [known_id(id) for id in ids]
    with open_queue(site) as queue:
        answers = _judged(queue, names, age, job_type)
        doomed = [letter for letter, told in answers.items() if told == "doomed"]
        told = {letter.id: word for letter, word in answers.items()} | {
            name: "gone" for name in names if name not in {letter.id for letter in answers}
        }
        if yes:
            told |= queue.run(repairing.purge(queue.keys, doomed))
    if ids or as_json:
        tell_each(told, {name: _PURGED.get(word, f"not dead: {word}") for name, word in told.items()}, as_json)
    elif yes:
        answer(f"{count(sum(word == 'purged' for word in told.values()))} deleted")
    else:
        _tell_doomed(doomed)
    if doomed and not yes:
        warn("nothing was deleted: add --yes to do it")
    return 0 if set(told.values()) <= {"purged"} or (yes and not ids) else 1


def _age(older_than: str | None) -> float:
    try:
        return 0.0 if older_than is None else parse_duration(older_than)
    except ValueError as error:
        raise PayloadError(f"--older-than: {error}") from None


def _judged(queue: SyncQueue, names: list[str], age: float, job_type: str | None) -> dict[Letter, str]:
    """Return each letter with what is to become of it; of all dead letters, only those that are doomed."""
    found = queue.run(repairing.letters(queue.keys, names or None))
    judged = {letter: _judgement(letter, age, job_type) for letter in found}
    return judged if names else {letter: word for letter, word in judged.items() if word == "doomed"}


def _judgement(letter: Letter, age: float, job_type: str | None) -> str:
    if not letter.dead:
        return letter.status
    if job_type is not None and letter.type != job_type:
        return "other"
    return "doomed" if (letter.age or 0.0) >= age else "younger"


def _tell_doomed(doomed: Sequence[Letter]) -> None:
    answer(f"{plural(len(doomed), 'dead letter')} would be deleted")
    rows = [(shown_id(letter.id), line(letter.type) or "-", ago(letter.age or 0.0)) for letter in doomed[:_LISTED]]
    if rows:
        answer(Paper.of(sys.stdout).table(("ID", "TYPE", "FAILED"), rows))
    if len(doomed) > _LISTED:
        answer(f"… and {count(len(doomed) - _LISTED)} more; --json names all")
