"""`jobq logs`: what the journal of this machine holds about one job, or where else to look."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from jobqd.cli import journalctl, logplace
from jobqd.cli.documents import dumps
from jobqd.cli.journalctl import Entry
from jobqd.cli.session import Site, Trouble, open_queue, warn
from jobqd.cli.text import Paper, answer, block, line, shown_id
from jobqd.errors import JobqdError, PayloadError
from jobqd.store import counting, reading
from jobqd.store.facts import JobInfo

_COLOURS = {"critical": "red", "error": "red", "warning": "yellow"}
_INDENT = " " * 21
_OWN = frozenset({
    "MESSAGE", "PRIORITY", "EVENT", "EXCEPTION", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE", "CODE_FUNC",
})  # fmt: skip


def logs(site: Site, id: str, *, follow: bool, as_json: bool) -> int:
    """Show the lines of one job, oldest first; 1 if there are none."""
    if not id or "\0" in id:
        raise PayloadError("id: give the id of a job")
    program = journalctl.program()
    if program is None:
        raise Trouble(f"there is no journalctl on this machine\n      {_elsewhere(site, id)}", 1)
    if follow and not journalctl.readable():
        # All the same: a daemon that this user's own service manager runs logs to a journal of the user's.
        warn(_no_right())
    paper = Paper.of(sys.stdout)
    some = False
    with contextlib.suppress(KeyboardInterrupt), journalctl.entries(program, id, follow=follow) as found:
        for entry in found:
            some = True
            answer(dumps(_document(entry), lines=True) if as_json else _page(paper, entry))
    if some or follow:
        return 0
    reason = _elsewhere(site, id) if journalctl.readable() else _no_right()
    warn(f"the journal of this machine shows no line of job {shown_id(id)}\n      {reason}")
    return 1


def _page(paper: Paper, entry: Entry) -> str:
    moment = datetime.fromtimestamp(entry.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    first, *rest = block(entry.message).split("\n")
    lines = [f"{paper.style(moment, dim=True)}  {paper.style(first, _COLOURS.get(entry.level))}"]
    rest += block(entry.fields.get("EXCEPTION", "")).split("\n") if "EXCEPTION" in entry.fields else []
    return "\n".join([*lines, *(paper.style((_INDENT + more).rstrip(), dim=True) for more in rest)])


def _document(entry: Entry) -> dict[str, Any]:
    fields = entry.fields
    code = {name: fields.get(f"CODE_{name.upper()}") for name in ("file", "line", "func")}
    return {
        "time": entry.time,
        "level": entry.level,
        "event": fields.get("EVENT"),
        "message": entry.message,
        "exception": fields.get("EXCEPTION"),
        "code": code,
        "host": fields.get("_HOSTNAME"),
        "unit": fields.get("_SYSTEMD_UNIT"),
        "fields": {name: text for name, text in fields.items() if name not in _OWN and not name.startswith("_")},
    }


def _no_right() -> str:
    return "this user may not read the system's journal: use sudo, or join the group systemd-journal"


def _elsewhere(site: Site, id: str) -> str:
    """Return where the lines of a job may be, by what Redis knows of it."""
    try:
        with open_queue(site) as queue:
            job = queue.run(reading.show(queue.keys, id))
            daemons = queue.run(counting.daemons(queue.keys))
    except JobqdError as error:
        return f"where it ran is not known either: {error}"
    return " ".join(_reasons(job, {daemon.worker: daemon for daemon in daemons}))


def _reasons(job: JobInfo | None, daemons: dict[str, counting.DaemonInfo]) -> Iterator[str]:
    if job is None:
        yield "there is no such job in the queue either: see whether the id is whole"
        return
    worker = job.fields.get("worker", "")
    if not worker and not job.fields.get("fence"):
        yield f"no daemon has run it yet: it is {line(job.status)}"
        return
    daemon = daemons.get(worker)
    if daemon is None:
        yield f"the daemon that ran it last ({line(worker) or 'not known'}) has ended: look on the machine it ran on,"
        yield "and whether the journal reaches back so far"
    elif daemon.host != socket.gethostname():
        yield f"daemon {line(daemon.instance)} on {line(daemon.host)} runs such jobs, and ran this one last: look there"
    else:
        yield f"daemon {line(daemon.instance)} (pid {daemon.pid}) on this machine ran it last:"
        if (place := logplace.outside_the_journal(daemon.pid)) is not None:
            yield f"it logs to {line(place)}, unless log_format is journald"
        else:
            yield "it logs to the journal if systemd runs it; beyond 200 completed jobs a second it leaves lines out"
