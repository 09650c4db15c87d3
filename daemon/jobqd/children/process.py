"""The process of a child: its start, what it prints, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from jobqd.guardian import Child, Command, Guardian
from jobqd.guardian.spawn import environment
from jobqd.programs.lines import LineSplitter, Tail

DUMP_SIGNAL = signal.SIGRTMAX
"""Lets a child print where all of its threads are; the interpreter handles it even where Python code cannot run."""
_LINGER = 1.0
_DUMP_TIME = 0.3


class _Printed(asyncio.Protocol):
    """Reads what a child prints all the time, so that it never waits for a reader; keeps the last of it."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._lines = LineSplitter()
        self.tail = Tail()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._take(self._lines.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._take(self._lines.finish())
        self.ended.set()

    def _take(self, lines: list[str]) -> None:
        self.tail.add(lines)
        for line in lines:
            self._on_line(line)


class ChildProcess:
    """A Python interpreter of its own session, protected before it runs anything, with a socket to the daemon.

    A fresh interpreter and not a fork: the daemon has threads, and a fork would inherit whatever they hold locked.
    """

    def __init__(self, child: Child, printed: _Printed, transport: asyncio.BaseTransport) -> None:
        self._child = child
        self._printed = printed
        self._transport = transport

    @classmethod
    async def start(cls, guardian: Guardian, theirs: socket.socket, on_line: Callable[[str], None]) -> ChildProcess:
        """Start it with one end of a socket pair. Raises OSError if that fails; nothing is left behind then."""
        ours, write_end = os.pipe()
        pipe = os.fdopen(ours, "rb", buffering=0)
        printed = _Printed(on_line)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: printed, pipe)
            try:
                # No await between the start and the return: a process that nobody knows of would stay.
                kept = (theirs.fileno(),) if guardian.lock is None else (theirs.fileno(), guardian.lock)
                child = Child.start(_command(write_end, kept), guardian)
            except BaseException:
                transport.close()
                raise
        finally:
            os.close(write_end)
        return cls(child, printed, transport)

    @property
    def ended(self) -> bool:
        """Whether it is gone, and its whole group with it."""
        return self._child.status is not None

    @property
    def printed(self) -> str:
        """The last lines that it printed; after a fatal signal they say where in the code that was."""
        return "\n".join(self._printed.tail.lines)

    async def wait(self) -> int:
        """Return its exit status, negative for a signal, once its group is gone and what it printed is read."""
        status = await self._child.wait()
        with suppress(TimeoutError):
            # A process that left the group may hold the pipe open.
            async with asyncio.timeout(_LINGER):
                await self._printed.ended.wait()
        self._transport.close()
        return status

    def kill(self) -> None:
        """End it and all it started, at once."""
        self._child.signal(signal.SIGKILL)

    def dump_and_kill(self) -> None:
        """Let it print where it hangs, then end it."""
        if not self.ended:
            # It is a child of ours that is not reaped: the number is its own.
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, DUMP_SIGNAL)
            asyncio.get_running_loop().call_later(_DUMP_TIME, self.kill)


def _command(printing: int, kept: tuple[int, ...]) -> Command:
    # The application may enqueue from a handler there, as it may here.
    # -P: what lies in the working directory must not stand in for modules of the interpreter or of ours.
    argv = (sys.executable, "-P", "-m", "jobqd.children")
    return Command(argv, environment(None, enqueues=True), stdout=printing, stderr=printing, kept=kept)


def death(status: int) -> str:
    """Return how a process ended, as a person would say it: "was killed by SIGSEGV", "exited with status 3"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (" (perhaps memory ran out)" if name == "SIGKILL" else "")
