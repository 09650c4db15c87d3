"""The daemon's side of the guardian: it is told every process group that has to end with the daemon."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from jobqd.guardian.spawn import environment, group_lives, reap, spawn, when_ended

_WATCH = Path(__file__).with_name("watch.py")
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_CLOSE_PATIENCE = 3.0
_REVIVE_DELAY = 1.0
_KILL_PATIENCE = 1.0
_KILL_POLL = 0.01


class Guardian:
    """A small process that ends the registered process groups when the daemon is gone, however it went.

    It starts with the first group and is started anew, and told everything again, if it dies. To be used in
    the thread of one running event loop. It keeps the file descriptor `lock` open until every group is gone.
    """

    __slots__ = ("_closed", "_groups", "_pid", "_pipe", "lock")

    def __init__(self, lock: int | None = None) -> None:
        self.lock = lock
        self._groups: set[int] = set()
        self._pid = 0
        self._pipe: int | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """The process id of the guardian's process, 0 while there is none."""
        return self._pid

    def protect(self, pgid: int) -> None:
        """Let this process group end when the daemon does.

        When this returns the guardian has been told: if the daemon dies at once, the line is in its pipe.
        Raises OSError if the guardian cannot be started, ValueError for a number that is no group of ours.
        """
        if pgid <= 1:
            raise ValueError(f"{pgid} is not a process group that could be ended")
        self._groups.add(pgid)
        try:
            self._tell(b"+%d\n" % pgid)
        except OSError:
            self._groups.discard(pgid)
            raise

    def release(self, pgid: int) -> None:
        """Forget a process group; to be called before its number can be used again."""
        if pgid in self._groups:
            self._groups.discard(pgid)
            if self._pipe is not None:
                self._tell(b"-%d\n" % pgid)

    def kill_all(self) -> None:
        """Send SIGKILL to every group, and wait until they are gone, but no longer than a second; from any thread."""
        groups = tuple(self._groups)
        for group in groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_PATIENCE
        while any(map(group_lives, groups)) and time.monotonic() < deadline:
            time.sleep(_KILL_POLL)

    def close(self) -> None:
        """End the guardian; groups that are still registered end with it (waits for that, up to 3 s)."""
        self._closed = True
        if self._pipe is None:
            return
        os.close(self._pipe)
        self._pipe = None
        self._await_end()

    def _await_end(self) -> None:
        try:
            descriptor = os.pidfd_open(self._pid)
        except OSError:
            return  # gone already, or a kernel without pidfds: not worth waiting for
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(_CLOSE_PATIENCE * 1000)
        os.close(descriptor)

    def _tell(self, line: bytes) -> None:
        if self._pipe is not None:
            try:
                os.write(self._pipe, line)
            except (BrokenPipeError, BlockingIOError):
                self._drop()
            else:
                return
        self._start()

    def _drop(self) -> None:
        """Let go of a guardian that is dead or hangs."""
        if self._pipe is None:
            return
        # Before the pipe closes: a guardian that only hung would otherwise wake up and end every group.
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._pipe)
        self._pipe = None

    def _start(self) -> None:
        """Start the process and tell it every group."""
        theirs, ours = os.pipe()  # close-on-exec: a child that kept `ours` would keep the guardian waiting
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            argv = (sys.executable, "-I", "-S", str(_WATCH))
            held = {} if self.lock is None else {3: self.lock}
            pid = spawn(argv, environment(None), {0: theirs, 1: null, 2: null, **held}, blocked=_BLOCKED)
        except (OSError, ValueError) as error:
            os.close(ours)
            raise OSError(f"the guardian process cannot start: {error}") from error
        finally:
            os.close(theirs)
            os.close(null)
        self._pid, self._pipe = pid, ours
        os.write(ours, b"".join(b"+%d\n" % group for group in sorted(self._groups)))
        os.set_blocking(ours, False)
        when_ended(pid, lambda: self._ended(pid))

    def _ended(self, pid: int) -> None:
        reap(pid)
        if pid != self._pid:
            return
        self._pid = 0
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        self._revive()

    def _revive(self) -> None:
        if self._closed or not self._groups or self._pipe is not None:
            return
        try:
            self._start()
        except OSError:
            asyncio.get_running_loop().call_later(_REVIVE_DELAY, self._revive)
