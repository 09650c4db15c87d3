"""The daemon's loops: each a task; one that crashes, or ends before the stop, ends the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from jobqd.clock import Log

T = TypeVar("T")

_CANCEL_PATIENCE = 5.0


class Crash(Exception):  # noqa: N818 - says what happened
    """A loop ended when none may, or with an exception, its cause. `part` names the loop."""

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(f"the {part} crashed")


class Loops:
    """Starts loops and notices when one crashes; to be made on the running event loop."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._endless: set[asyncio.Task[None]] = set()
        self._crash: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending = False

    def start(self, name: str, loop: Coroutine[Any, Any, None], *, endless: bool = False) -> asyncio.Task[None]:
        """Start a loop; an `endless` one is ended by `close`, the others end by themselves when asked to."""
        task = asyncio.get_running_loop().create_task(loop, name=name)
        (self._endless if endless else self._tasks).add(task)
        task.add_done_callback(self._ended)
        return task

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work while loops run; raises Crash, after cancelling the work and every loop, if one crashes."""
        task = asyncio.get_running_loop().create_task(work, name="life")
        await asyncio.wait((task, self._crash), return_when=asyncio.FIRST_COMPLETED)
        if not self._crash.done():
            return task.result()
        for each in (task, *self._tasks):
            each.cancel()
        await asyncio.wait((task, *self._tasks), timeout=_CANCEL_PATIENCE)
        raise self._crash.exception() or AssertionError

    def expect_ends(self) -> None:
        """Take note that a stop begins: until now no loop may end, however it does."""
        self._ending = True

    async def end(self, timeout: float) -> bool:
        """Wait until every loop has ended by itself, at most so many seconds; returns whether they have."""
        running = {task for task in self._tasks if not task.done()}
        if running:
            _, running = await asyncio.wait(running, timeout=timeout)
        return not running

    async def close(self) -> None:
        """End the endless loops."""
        self.expect_ends()
        for task in self._endless:
            task.cancel()
        await asyncio.gather(*self._endless, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._crash.done():
            return
        error = None if task.cancelled() else task.exception()
        if error is None and self._ending:
            return
        # Cancelled, most likely by an application that cancels all tasks there are: without this loop a daemon
        # would live on and do nothing.
        self._log.critical("daemon.crashed", part=task.get_name(), exc_info=error)
        crash = Crash(task.get_name())
        crash.__cause__ = error
        self._crash.set_exception(crash)
