"""A program while it runs: its process group, and the three pipes that connect it to us."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from jobqd.guardian import Child, Command, Guardian
from jobqd.guardian.spawn import environment
from jobqd.programs.lines import LineSplitter, Tail
from jobqd.programs.options import ProgramOptions

# Small enough that handing over a piece of nothing but line ends holds the event loop for milliseconds only.
_CHUNK = 16 * 1024
# How long the output may stay open after the whole group is gone: only a process that left it can hold it.
_LINGER = 1.0


class _Errors(asyncio.Protocol):
    """Reads a program's stderr all the time, so that the program never waits for a reader, into a tail."""

    def __init__(self, tail: Tail) -> None:
        self._tail, self._lines = tail, LineSplitter()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._tail.add(self._lines.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._tail.add(self._lines.finish())
        self.ended.set()


class _Feed(asyncio.Protocol):
    """What remembers whether the program's standard input is still open: aborting a lost transport fails."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


class Process:
    """A program's process group and its pipes. `start` it once; `stop` works at any moment."""

    __slots__ = ("_child", "_errors", "_feed", "_output", "_patience", "_transports", "tail")

    def __init__(self) -> None:
        self.tail = Tail()
        """The last lines of its stderr."""
        self._child: Child | None = None
        self._errors: _Errors | None = None
        self._feed = _Feed()
        self._output = asyncio.StreamReader(limit=4 * _CHUNK, loop=asyncio.get_running_loop())
        self._patience: asyncio.Timeout | None = None
        self._transports: list[asyncio.BaseTransport] = []

    async def start(self, argv: tuple[str, ...], options: ProgramOptions, guardian: Guardian) -> None:
        """Start `argv`, its first word an absolute path. Raises OSError or ValueError if that fails."""
        theirs: list[int] = []
        try:
            await self._connect(lambda: asyncio.StreamReaderProtocol(self._output), theirs)
            if options.stderr == "tail":
                self._errors = _Errors(self.tail)
                await self._connect(self._follow_errors, theirs)
            # No await between the start and `self._child`: a cancelled start must not lose a running program.
            self._child = Child.start(_command(argv, options, theirs), guardian)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._child.on_end(self._lose_patience)
        if options.input is not None:
            await self._send(options.input)

    async def read(self) -> bytes:
        """Return the next piece of the output, empty once it has ended."""
        await asyncio.sleep(0)  # a program that writes without a pause must not hold the event loop
        linger = _LINGER if self._child is not None and self._child.status is not None else None
        try:
            async with asyncio.timeout(linger) as self._patience:
                return await self._output.read(_CHUNK)
        except TimeoutError:
            return b""
        finally:
            self._patience = None

    async def wait(self) -> int:
        """Return the exit status, negative for a signal, once the program, group and stderr have ended."""
        assert self._child is not None, "only a started program can be waited for"  # noqa: S101 - for the reader
        status = await self._child.wait()
        if self._errors is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    await self._errors.ended.wait()
        self._close()
        return status

    async def stop(self, kill_after: float) -> None:
        """End the whole group: SIGTERM, SIGKILL after so many seconds; return when it is gone."""
        if self._child is not None:
            await self._child.stop(kill_after)
        self._close()

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    async def _connect(self, protocol: Callable[[], asyncio.BaseProtocol], theirs: list[int]) -> None:
        """Make a pipe from the program to us; its write end is added to `theirs`."""
        ours, write_end = os.pipe()
        theirs.append(write_end)
        pipe = os.fdopen(ours, "rb", buffering=0)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(protocol, pipe)
        except BaseException:
            pipe.close()
            raise
        self._transports.append(transport)

    def _follow_errors(self) -> _Errors:
        assert self._errors is not None  # noqa: S101 - set by the only caller
        return self._errors

    async def _send(self, data: bytes) -> None:
        assert self._child is not None and self._child.stdin is not None  # noqa: PT018, S101 - set by the only caller
        pipe = os.fdopen(self._child.stdin, "wb", buffering=0)
        try:
            transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: self._feed, pipe)
        except BaseException:
            pipe.close()
            raise
        transport.write(data)
        transport.close()  # once all of it is written

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + _LINGER)

    def _close(self) -> None:
        if self._feed.transport is not None:
            self._feed.transport.abort()
        for transport in self._transports:
            transport.close()


def _command(argv: tuple[str, ...], options: ProgramOptions, theirs: list[int]) -> Command:
    directory = None if options.cwd is None else os.path.abspath(options.cwd)  # noqa: PTH100 - ".." must stay textual
    return Command(
        argv=argv,
        env=environment(options.env),
        stdout=theirs[0],
        stderr=theirs[-1],
        directory=directory,
        fed=options.input is not None,
    )
