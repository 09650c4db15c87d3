"""One external process and its group, from a start that cannot outrun the guardian to the last grandchild."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from jobqd.guardian.guardian import Guardian
from jobqd.guardian.spawn import group_lives, reap, spawn, when_ended

_SHELL = "/bin/sh"
_GROUP_CHECKS, _GROUP_POLL = 100, 0.01
# The shell waits for a line before it becomes the program, so nothing runs that the guardian has not heard
# of: if the daemon dies first, the read meets the end of the pipe. A shell reads a pipe byte by byte, so that
# what follows the line is left for the program.
_GATE = "read -r _ || exit 125; "
_ENTER = 'cd "$1" || exit 125; shift; '
_RUN = {False: 'exec "$@" </dev/null', True: 'exec "$@"'}


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `argv` (its first word an absolute path), its whole environment, a directory or None.

    `stdout` and `stderr` are file descriptors of ours; so are `kept`, which the program holds open as 3, 4 and so on.
    With `fed` the program's standard input is left open as `Child.stdin`; otherwise it is /dev/null.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    stdout: int
    stderr: int
    directory: str | None = None
    fed: bool = False
    kept: tuple[int, ...] = ()


class Child:
    """A running process group; made by `Child.start`."""

    __slots__ = ("_ended", "_guardian", "pid", "stdin")

    def __init__(self, pid: int, guardian: Guardian) -> None:
        self.pid = pid
        """Process id of the leader, and number of the group."""
        self.stdin: int | None = None
        """Write end of its standard input, for the caller to close; None unless the command is fed."""
        self._guardian = guardian
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @classmethod
    def start(cls, command: Command, guardian: Guardian) -> Child:
        """Start the command in a process group that the guardian knows before the program runs.

        Raises OSError or ValueError if it cannot start; nothing is left behind then.
        """
        theirs, gate = os.pipe()
        try:
            child = cls._register(command, theirs, guardian)
        except BaseException:
            os.close(gate)
            raise
        finally:
            os.close(theirs)
        with suppress(BrokenPipeError):  # it is dead already: its status will tell
            os.write(gate, b"\n")
        if command.fed:
            child.stdin = gate
        else:
            os.close(gate)
        return child

    @classmethod
    def _register(cls, command: Command, stdin: int, guardian: Guardian) -> Child:
        descriptors = {0: stdin, 1: command.stdout, 2: command.stderr, **dict(enumerate(command.kept, 3))}
        pid = spawn(_gated(command), command.env, descriptors)
        try:
            guardian.protect(pid)
            child = cls(pid, guardian)
            when_ended(pid, child._end)
        except BaseException:
            os.killpg(pid, signal.SIGKILL)
            reap(pid)
            guardian.release(pid)
            raise
        return child

    @property
    def status(self) -> int | None:
        """The leader's exit status, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Return the leader's exit status, negative for a signal, once it and its whole group are gone."""
        return await asyncio.shield(self._ended)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon after the leader and its group are gone."""
        self._ended.add_done_callback(lambda _: callback())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if it is still there."""
        if not self._ended.done():
            # The group exists: its leader is not reaped before _end. A member may belong to another user.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def stop(self, kill_after: float) -> int:
        """End the group: SIGTERM, SIGKILL after so many seconds; return its status once it is gone."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a stopped process would never see the SIGTERM
        try:
            async with asyncio.timeout(kill_after):
                await self.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
        return await self.wait()

    def _end(self) -> None:
        """End what the leader left in its group, then reap it."""
        self.signal(signal.SIGKILL)
        self._await_group(reap(self.pid), _GROUP_CHECKS)

    def _await_group(self, status: int, checks: int) -> None:
        """Tell those who wait once nobody is left; one that even SIGKILL cannot end is waited for 1 s."""
        if checks and group_lives(self.pid):
            asyncio.get_running_loop().call_later(_GROUP_POLL, self._await_group, status, checks - 1)
            return
        self._guardian.release(self.pid)
        if not self._ended.done():
            self._ended.set_result(status)


def _gated(command: Command) -> list[str]:
    if command.directory is None:
        return [_SHELL, "-c", _GATE + _RUN[command.fed], "sh", *command.argv]
    return [_SHELL, "-c", _GATE + _ENTER + _RUN[command.fed], "sh", command.directory, *command.argv]
