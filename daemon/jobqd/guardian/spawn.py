"""Starting a process with a clean slate: own session, default signals, no descriptor it was not given."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# The interpreter ignores the last two; the others may be ignored or blocked by whoever started the daemon.
_RESET = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1,
    signal.SIGUSR2, signal.SIGPIPE, signal.SIGXFSZ,
)  # fmt: skip
_NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
# Rather too much than too little: all before an @ may be a password, and so may a user name.
_IN_URL = re.compile(r"@|[?&][^=&]*(?:password|passwd|secret|token|username)[^=&]*=", re.IGNORECASE)


def environment(extra: Mapping[str, str] | None, *, enqueues: bool = False) -> dict[str, str]:
    """Return the daemon's environment plus `extra`, without what only the daemon may use to call systemd.

    Without the password of Redis either, which crash reports of a program would tell, unless the process is one of
    ours that may enqueue.
    """
    mine = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_FOR_CHILDREN and (enqueues or not _has_password(name, value))
    }
    return {**mine, **(extra or {})}


def _has_password(name: str, value: str) -> bool:
    return name == "JOBQD_REDIS_PASSWORD" or (name == "JOBQD_REDIS_URL" and bool(_IN_URL.search(value)))


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    descriptors: Mapping[int, int],
    *,
    blocked: Iterable[signal.Signals] = (),
) -> int:
    """Start `argv` (its first word an absolute path) in a session of its own and return its process id.

    `descriptors` maps the child's file descriptors to ours; all others are closed. `blocked` signals stay
    blocked in the child. posix_spawn, because it is the only way that sets signals and mask without running
    Python between fork and exec, which is unsafe in a process with threads.

    Raises OSError or ValueError if it cannot start.
    """
    leaks = set(_inheritable()) - set(descriptors.values())
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in leaks]
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in sorted(descriptors.items())]
    return os.posix_spawn(
        argv[0], list(argv), env, file_actions=actions, setsid=True, setsigmask=blocked, setsigdef=_RESET
    )


def _inheritable() -> list[int]:
    """Return the descriptors above 2 that would leak into a child: those not made by Python, mostly."""
    leaks = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths, and on a hot path
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                leaks.append(int(name))
    return leaks


def when_ended(pid: int, callback: Callable[[], None]) -> None:
    """Call `callback` in the running event loop once our child `pid` has ended.

    The child is left a zombie, so that its number and its group's cannot be reused before the callback has
    dealt with them; the callback reaps it. A thread, because pidfds need Linux 5.3 and the event loops' own
    watchers reap at once.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        with suppress(ChildProcessError):  # SIGCHLD was ignored by whoever started us: reaped by the kernel
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed: nobody is interested any more
            loop.call_soon_threadsafe(callback)

    threading.Thread(target=wait, name=f"jobqd-wait-{pid}", daemon=True).start()


def reap(pid: int) -> int:
    """Return the exit status of our ended child, negative for a signal; 255 if the kernel did not keep it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 255


def group_lives(pgid: int) -> bool:
    """Whether a process group has a member that is not a zombie (in a container nobody may reap those)."""
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return any(_is_live_member(stat, pgid) for stat in Path("/proc").glob("[0-9]*/stat"))


def _is_live_member(stat: Path, pgid: int) -> bool:
    try:
        # "pid (name) state ppid pgrp ...", where the name may hold anything: proc_pid_stat(5).
        state, _, group = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(group) == pgid and state not in "ZX"


def program_path(name: str, *, directory: str | None, search: str | None) -> Path | None:
    """Return where the program `name` is, absolute, or None.

    A name with a slash is relative to `directory`, as a shell there would read it; any other is looked up in
    `search`, a list as in PATH.
    """
    if "/" in name:
        path = Path(directory or ".", name).absolute()
        return path if path.is_file() else None
    for entry in (search or os.defpath).split(os.pathsep):
        path = Path(entry or ".", name).absolute()
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None
