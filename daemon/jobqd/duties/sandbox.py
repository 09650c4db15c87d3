"""A hint for failures that the hardening of the unit may have caused: once for each type of job."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqd.job import Claimed
from jobqd.retry import Settlement

_READ_ONLY, _NOT_PERMITTED, _DENIED = "Read-only file system", "Operation not permitted", "Permission denied"
_NO_FAMILY = "Address family not supported by protocol"
_PHRASE = re.compile(f"{_READ_ONLY}|{_NOT_PERMITTED}|{_DENIED}|{_NO_FAMILY}")
_MISSING = "No such file or directory"
# PrivateDevices= makes a GPU look as if there were none, and a missing file is a refusal nowhere else. The last form is
# what ffmpeg makes of it.
_GPU = r"""/dev/(?:dri/|nvidia)[^\s:'"]{0,100}"""
_NO_GPU = re.compile(
    rf"""{_MISSING}: ['"]?({_GPU})|({_GPU})['"]?: {_MISSING}|No VA display found for device ({_GPU}(?<!\.))"""
)
# As Python says it ("[Errno 30] Read-only file system: '/srv/x'") and as programs do ("/srv/x: Read-only file system").
_BEHIND = re.compile(r""":\s['"]?(/[^\n'"]*)""")
_BEFORE = re.compile(r"""(/[^\s:'"]+)['"]?:\s$""")
_HOMES = ("/home/", "/root/", "/run/user/")
_PATH_MAX = 300
DROP_INS = (Path("/usr/local/share/jobqd"), Path("/usr/share/jobqd"))
"""Where `make install` puts the drop-ins, by its PREFIX=."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the system refused: strerror(3)'s words, and the path if it was about one."""

    phrase: str
    path: str


def refusal(text: str) -> Refusal | None:
    """Return the last refusal that an error or a traceback tells of, if it does."""
    # In steps that each take the time of one look at the text: a producer may have written all of it.
    found = max((*_PHRASE.finditer(text), *_NO_GPU.finditer(text)), key=re.Match.start, default=None)
    if found is None:
        return None
    if found.re is _NO_GPU:
        return Refusal(_MISSING, next(filter(None, found.groups())))
    start, end = found.span()
    path = _BEHIND.match(text, end, end + _PATH_MAX) or _BEFORE.search(text[max(0, start - _PATH_MAX) : start])
    return Refusal(found[0], path[1] if path else "")


def drop_ins(places: Sequence[Path] = DROP_INS) -> str:
    """Return the directory of the drop-ins on this machine, as well as it can be told."""
    return str(next((place for place in places if place.is_dir()), "PREFIX/share/jobqd"))


def remedy(refused: Refusal, unit: str, samples: str) -> str:
    """Return what an administrator can do if the hardening of this unit is the reason; `samples` has the drop-ins."""
    edit = f"sudo systemctl edit {unit}"
    if refused.path.startswith("/dev/"):
        there = "if this machine has that device: " if refused.phrase == _MISSING else ""
        return f"{there}{edit}, the lines of {samples}/gpu.conf or a DeviceAllow= for that device, and restart"
    if refused.phrase == _NO_FAMILY:
        return f"{edit}, RestrictAddressFamilies=AF_NETLINK or another as in {samples}/relax.conf, and restart"
    if refused.path.startswith(_HOMES):
        return f"keep the file elsewhere, or {edit}, ProtectHome= as in {samples}/relax.conf, and restart"
    if refused.path:
        directory = os.path.dirname(refused.path) or "/"  # noqa: PTH120 - a text from elsewhere, not a path of ours
        rights = "" if refused.phrase == _READ_ONLY else "check the owner and mode of it; "
        return (
            f"{rights}write below $STATE_DIRECTORY, or allow the directory: {edit}, "
            f"[Service] ReadWritePaths={directory}, and restart"
        )
    return f"{edit}, the line of {samples}/relax.conf for what the job does, such as SystemCallFilter=, and restart"


class Sandbox:
    """Looks at failures and gives each type of job at most one hint; `unit` is None where nothing is hardened."""

    def __init__(self, log: Any, unit: str | None) -> None:
        self._log = log
        self._unit = unit
        self._hinted: set[str] = set()

    def failed(self, claimed: Claimed, order: Settlement) -> None:
        """Look at a run that failed."""
        if self._unit is None or claimed.type in self._hinted:
            return
        refused = refusal(f"{order.traceback}\n{order.error}")
        if refused is None:
            return
        self._hinted.add(claimed.type)
        self._log.warning(
            "sandbox.hint", job_id=claimed.id, job_type=claimed.type, problem=refused.phrase,
            path=refused.path or None, unit=self._unit, remedy=remedy(refused, self._unit, drop_ins()),
        )  # fmt: skip


def hardened_unit(environ: Mapping[str, str], process: Path = Path("/proc/self")) -> str | None:
    """Return the systemd unit this process is confined by, None if it is not.

    $INVOCATION_ID alone proves little: a terminal started by a user's session manager has it too. So the process
    must be in the control group of a service and be refused new privileges (NoNewPrivileges=, or what implies it).
    """
    if not environ.get("INVOCATION_ID"):
        return None
    try:
        status = (process / "status").read_text()
        groups = (process / "cgroup").read_text()
    except OSError:
        return None
    if not re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE):
        return None
    # "0::/system.slice/jobqd.service" (cgroup v2), "1:name=systemd:/…" (v1); see cgroups(7).
    found = re.search(r"^(?:0:|\d+:name=systemd):\S*/([^/\s]+\.service)(?:/|$)", groups, re.MULTILINE)
    return found[1] if found else None
