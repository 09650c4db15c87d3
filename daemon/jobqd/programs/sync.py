"""An external program as a `def` handler in a thread uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from jobqd.programs.options import Finished
from jobqd.programs.program import Program

T = TypeVar("T")


class SyncProgram:
    """A program for a thread beside the event loop: iterate over it, or call `run`.

    Raises ProgramError as `Program` does. When the daemon ends the run the program is stopped, so a thread
    that waits for its output gets that error and can return.
    """

    __slots__ = ("_loop", "_program")

    def __init__(self, program: Program, loop: asyncio.AbstractEventLoop) -> None:
        self._program = program
        self._loop = loop

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None until its output has ended."""
        return self._program.status

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._wait(self._next_line())
        if line is None:
            raise StopIteration
        return line

    def run(self) -> Finished:
        """Run it to its end and return its exit status and all of its output."""
        return self._wait(self._run())

    def stop(self) -> None:
        """End the program and its whole process group; return when they are gone."""
        self._wait(self._program.stop())

    async def _next_line(self) -> str | None:
        return await anext(self._program, None)

    async def _run(self) -> Finished:
        return await self._program

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
