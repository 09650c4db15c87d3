"""An external program as a handler uses it: iterate over its lines, or await all of its output."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

from jobqd.errors import ProgramError
from jobqd.guardian import Guardian
from jobqd.guardian.spawn import environment, program_path
from jobqd.programs.lines import LineSplitter
from jobqd.programs.options import Finished, ProgramOptions
from jobqd.programs.process import Process
from jobqd.units import format_size, parse_duration

MAX_OUTPUT = 16 * 1024 * 1024
"""Bytes of output that are collected for `await job.exec(...)`."""
_MESSAGE_LINES, _MESSAGE_CHARACTERS = 5, 1000


class Program:
    """One run of an external program; made by `job.exec`, started by its first use.

    Iterate over it for the lines of its output, or await it for all of it as `Finished`. When the output has
    ended its exit status is checked. It has a session of its own, and its process group ends with it, with
    the cancellation of the task that uses it, with its job's run, and with the daemon. Only a process that
    leaves the group (a daemon that calls setsid) escapes.

    Raises ProgramError if it cannot start, ends with an error (unless `check=False`), or is stopped.
    """

    __slots__ = ("_argv", "_guardian", "_lines", "_options", "_output_ended", "_process", "_ready", "_status",
                 "_stopped", "_stopping")  # fmt: skip

    def __init__(self, argv: tuple[str, ...], options: ProgramOptions, guardian: Guardian) -> None:
        self._argv = argv
        self._options = options
        self._guardian = guardian
        self._process: Process | None = None
        self._lines = LineSplitter()
        self._ready: deque[str] = deque()
        self._output_ended = False
        self._status: int | None = None
        self._stopped = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The program's name, without its directory."""
        return Path(self._argv[0]).name if self._argv else ""

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None until its output has ended."""
        return self._status

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while not self._ready:
            if self._output_ended:
                await self._finish()
                raise StopAsyncIteration
            self._ready.extend(self._take(await self._read()))
        return self._ready.popleft()

    def __await__(self) -> Generator[Any, None, Finished]:
        return self._collect().__await__()

    async def stop(self) -> None:
        """End the program and its whole process group; return when they are gone. Harmless at any time."""
        self._stopped = True
        if self._process is None:
            return
        if self._stopping is None:
            stop = self._process.stop(parse_duration(self._options.kill_after))
            self._stopping = asyncio.create_task(stop)
        await asyncio.shield(self._stopping)  # whoever waits may be cancelled; the stopping goes on

    def kill(self) -> None:
        """Send SIGKILL to its whole process group; `stop` returns when that is gone."""
        if self._process is not None:
            self._process.kill()

    async def _collect(self) -> Finished:
        if self._output_ended:
            raise ProgramError(f"{self.name} has run already: call job.exec again to run it once more")
        chunks: list[bytes] = []
        size = 0
        while data := await self._read():
            self._take(data)
            chunks.append(data)
            size += len(data)
            if size > MAX_OUTPUT:
                await self.stop()
                raise ProgramError(
                    f"{self.name} was stopped: its output is larger than {format_size(MAX_OUTPUT)}; "
                    "iterate over its lines instead of awaiting all of them"
                )
        self._take(b"")
        status = await self._finish()
        return Finished(status, b"".join(chunks).decode("utf-8", "replace"))

    def _take(self, data: bytes) -> list[str]:
        """Return the lines that come with the next piece of output; an empty piece ends it."""
        lines = self._lines.feed(data) if data else self._lines.finish()
        self._output_ended = not data
        if self._options.stderr == "merge" and self._process is not None:
            self._process.tail.add(lines)
        return lines

    async def _read(self) -> bytes:
        try:
            if self._process is None:
                await self._start()
            return await self._process.read() if self._process is not None else b""
        except ProgramError:
            raise
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        if self._stopped:
            raise ProgramError(f"{self.name} was not started: its run has ended")
        argv = (str(self._find()), *self._argv[1:])
        process = self._process = Process()  # kept before it starts, so that a stop always reaches it
        try:
            await process.start(argv, self._options, self._guardian)
        except (OSError, ValueError) as error:
            self._process = None
            await process.stop(0)
            raise ProgramError(f"{self.name} cannot be started: {error}") from error

    def _find(self) -> Path:
        if not self._argv:
            raise ProgramError('there is no program to run: write job.exec("ffmpeg", "-i", ...)')
        name, directory = self._argv[0], self._options.cwd
        if directory is not None and not Path(directory).is_dir():
            raise ProgramError(f'{self.name} cannot be started: cwd "{directory}" is not a directory')
        path = program_path(name, directory=directory, search=environment(self._options.env).get("PATH"))
        if path is None and "/" in name:
            raise ProgramError(f'there is no program "{name}": check the path')
        if path is None:
            raise ProgramError(f'there is no program "{name}" on PATH: install it, or give its full path')
        return path

    async def _finish(self) -> int:
        """Wait for the end and return the exit status. Raises ProgramError as the class says."""
        if self._status is not None or self._process is None:
            return self._status or 0
        try:
            self._status = await self._process.wait()
        except BaseException:
            await self.stop()
            raise
        tail = self._process.tail.lines
        if self._stopped:
            raise ProgramError(f"{self.name} was stopped", status=self._status, stderr="\n".join(tail))
        if self._status and self._options.check:
            said = "\n".join(tail[-_MESSAGE_LINES:])[-_MESSAGE_CHARACTERS:].strip()
            message = f"{self.name} {_ending(self._status)}" + (f": {said}" if said else "")
            raise ProgramError(message, status=self._status, stderr="\n".join(tail))
        return self._status


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}" + (" (perhaps memory ran out)" if name == "SIGKILL" else "")
