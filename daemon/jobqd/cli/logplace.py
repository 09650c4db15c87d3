"""Where a daemon of this machine logs, by what /proc tells of its process."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def outside_the_journal(pid: int, proc: Path = _PROC) -> str | None:
    """Return in a few words where a daemon's stderr goes if not to the journal; None where it may, or is not known."""
    process = proc / str(pid)
    try:
        group = (process / "cgroup").read_text(encoding="utf-8", errors="replace")
        # A pid may have been given to another program since, and a container counts its own.
        if b"jobqd" not in (process / "cmdline").read_bytes():
            return None
    except OSError:
        return None
    try:
        stream = str((process / "fd" / "2").readlink())  # for its user and root only
    except OSError:
        # Of the journal only a service has a socket for its output; a session of a person is a scope.
        return None if _is_service(group) else "its own terminal or stderr"
    if stream.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
        return f"its own terminal, {stream}"
    if stream.startswith("/") and stream != "/dev/null":
        return f"the file {stream}"
    return "another program, through a pipe" if stream.startswith("pipe:") else None


def _is_service(group: str) -> bool:
    """Whether systemd runs a process as a service, by its control groups; where nothing tells, it may."""
    names = [line.rpartition("/")[2] for line in group.splitlines()]
    return any(name.endswith(".service") for name in names) or not any(name.endswith(".scope") for name in names)
