"""`jobq quiet`: an instance claims no more jobs, as before a deploy, or claims again."""

from __future__ import annotations

from dataclasses import asdict

from jobqd.cli.documents import dumps
from jobqd.cli.session import Site, open_queue, warn
from jobqd.cli.text import answer, line, plural
from jobqd.client.resting import PATIENCE, follows, rest
from jobqd.store.counting import DaemonInfo


def quiet(site: Site, instance: str, *, off: bool, host: str | None, as_json: bool) -> int:
    """Tell the daemons of an instance and wait until they say so; 1 if there is none, or one did not."""
    with open_queue(site) as queue:
        rested = queue.run(rest(queue.keys, instance, quiet=not off, host=host))
    daemons = rested.daemons
    obeyed = [daemon for daemon in daemons if follows(daemon, quiet=not off)]
    if as_json:
        answer(dumps({"daemons": [asdict(daemon) for daemon in daemons]}))
    else:
        for daemon in daemons:
            answer(_said(daemon))
    if not daemons:
        there = f"; these do: {line(', '.join(rested.others))}" if rested.others else "; none does"
        warn(f"no daemon of instance {line(instance)} runs{' there' if host else ''}{there}")
    elif len(obeyed) < len(daemons):
        silent = plural(len(daemons) - len(obeyed), "daemon")
        warn(
            f"{silent} did not answer within {PATIENCE:g} s; on its own host: systemctl kill --kill-whom=main -s "
            f"{'SIGUSR2' if off else 'SIGUSR1'} UNIT"
        )
    return 0 if daemons and len(obeyed) == len(daemons) else 1


def _said(daemon: DaemonInfo) -> str:
    who = f"{daemon.instance} on {daemon.host} (process {daemon.pid})"
    return line(f"{who}: {daemon.status}, {plural(daemon.running, 'job')} running")
