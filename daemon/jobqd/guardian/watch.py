"""The guardian's process: ends every registered process group once the daemon is gone.

It runs alone, by path and without site-packages, so that it is small (9 MB resident) and up in about 10 ms:
nothing may be imported here but the interpreter's own light modules.

Standard input is a pipe of lines, "+PGID" and "-PGID". It closes when the daemon ends in any way, `kill -9`
included; then each group still registered gets SIGTERM, and SIGKILL `GRACE` seconds later. File descriptor 3, if
there is one, is a lock that the next daemon waits for. Signals sent to the daemon's whole control group do not reach
this process: its spawner blocks them.
"""

import os
import signal
import time

GRACE = 1.5
"""Seconds between SIGTERM and SIGKILL."""
_KILL_PATIENCE = 1.0
_POLL = 0.02


def send(group: int, number: int) -> bool:
    """Signal a process group; false if nothing of it is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return number == 0
    return True


def end(groups: set[int]) -> None:
    """End every group: SIGTERM, up to `GRACE` seconds of patience, SIGKILL."""
    for group in groups:
        send(group, signal.SIGTERM)
        send(group, signal.SIGCONT)  # a stopped process would never see the SIGTERM
    left = remaining(groups, GRACE)
    for group in left:
        send(group, signal.SIGKILL)
    # Whoever gets the lock has to find them gone; what even this cannot end is not waited for.
    remaining(left, _KILL_PATIENCE)


def remaining(groups: set[int], patience: float) -> set[int]:
    """Wait up to so many seconds for these groups to be gone; return those that are not."""
    deadline = time.monotonic() + patience
    left = {group for group in groups if send(group, 0)}
    while left and time.monotonic() < deadline:
        time.sleep(_POLL)
        left = {group for group in left if send(group, 0)}
    return left


def follow(source: int) -> set[int]:
    """Read registrations until the pipe closes; return the groups that are still registered."""
    groups: set[int] = set()
    rest = b""
    while chunk := os.read(source, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            change = groups.add if line[:1] == b"+" else groups.discard
            change(int(line[1:]))
    # killpg(0) is our own group, killpg(1) everything we may signal.
    return {group for group in groups if group > 1}


if __name__ == "__main__":
    os.chdir("/")  # keep no file system busy
    end(follow(0))
    os._exit(0)
