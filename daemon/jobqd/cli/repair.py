"""`jobq repair`: what is wrong with a queue, told in words, and put right when that is asked for."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from jobqd.cli.documents import dumps
from jobqd.cli.session import Site, open_queue_and_settings, warn
from jobqd.cli.text import Paper, answer, count, plural, shown_id
from jobqd.client import repairing
from jobqd.client.repairing import Finding
from jobqd.errors import PayloadError
from jobqd.units import parse_duration

_LISTED = 20
_WORDS = {
    "enqueued": ("was written but never put into the queue", "put it there"),
    "restored": ("was in no index of the queue", "put it back"),
    "named": ("is held in a set that no daemon would look into", "name that set"),
    "persisted": ("waits with a TTL, and would vanish", "take the TTL off"),
    "ttl": ("has ended without a TTL, and would stay for ever", "set its TTL"),
    "unlisted": ("is in the list of dead letters and is none", "take it out"),
    "unheld": ("is held, but there is no such job", "take it out"),
    "unnamed": ("is the reason of an empty held set", "forget it"),
}


def repair(site: Site, *, yes: bool, older_than: str, as_json: bool) -> int:
    """Look through the whole queue; with `yes` put right what is wrong. 1 if something is wrong and was left so."""
    try:
        patience = parse_duration(older_than)
    except ValueError as error:
        raise PayloadError(f"--older-than: {error}") from None
    with open_queue_and_settings(site) as (queue, settings):
        found = queue.run(repairing.repair(queue.keys, dry=not yes, patience=patience, job_ttl=settings.job_ttl))
    if as_json:
        answer(dumps({"repaired": yes, "findings": [asdict(finding) for finding in found]}))
    else:
        _tell(found, yes=yes)
    return 1 if found and not yes else 0


def _tell(found: Sequence[Finding], *, yes: bool) -> None:
    if not found:
        answer("nothing is wrong")
        return
    counts = Counter(finding.what for finding in found)
    rows = []
    for what, (wrong, remedy) in _WORDS.items():
        some = [finding for finding in found if finding.what == what]
        rows += [(shown_id(finding.id), f"{wrong}: {remedy}") for finding in some[:_LISTED]]
        if len(some) > _LISTED:
            rows.append(("…", f"and {count(counts[what] - _LISTED)} more of this kind; --json names all"))
    answer(Paper.of(sys.stdout).table(("ID", "WRONG: REMEDY"), rows))
    if yes:
        answer(f"{plural(len(found), 'thing')} put right")
    else:
        warn(f"{plural(len(found), 'thing')} wrong; nothing was changed: add --yes to put them right")
