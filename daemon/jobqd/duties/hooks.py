"""The application's hooks for dead letters: a bounded number at once, and nothing that one raises harms another."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from jobqd.cancelled import cancels_us
from jobqd.clock import Log
from jobqd.handlers import DeadLetter, Handlers
from jobqd.units import shorten

AT_ONCE = 32
"""For so many letters at once."""
WAITING_MAX = 1000
"""So many letters wait for that; one more, and its hooks are not called: each may hold a megabyte of fields."""
TIME_LIMIT = 60.0
"""Seconds for one hook: one that hangs must not keep a place for ever."""


class DeadHooks:
    """Calls the `on_dead` hooks of each letter one after the other, in a task."""

    def __init__(self, log: Log, handlers: Handlers) -> None:
        self._log = log
        self._handlers = handlers
        self._waiting: deque[DeadLetter] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a hook to call."""
        return bool(self._handlers.dead_hooks)

    def call(self, letter: DeadLetter) -> None:
        """Call every hook for a letter, when its turn comes."""
        if len(self._tasks) < AT_ONCE:
            self._start(letter)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(letter)
        else:
            self._log.warning("hook.skipped", job_id=letter.id, job_type=letter.type)

    async def wait(self, timeout: float) -> None:
        """Give hooks under way, and those that wait for their turn, so many seconds to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    def _start(self, letter: DeadLetter) -> None:
        task = asyncio.get_running_loop().create_task(self._call_all(letter))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and len(self._tasks) < AT_ONCE:
            self._start(self._waiting.popleft())

    async def _call_all(self, letter: DeadLetter) -> None:
        for hook in self._handlers.dead_hooks:
            try:
                async with asyncio.timeout(TIME_LIMIT):
                    await hook(letter)
            except BaseException as error:
                # A SystemExit of a hook is its failure alone. GeneratorExit ends a coroutine that nobody runs any more.
                if cancels_us(error) or isinstance(error, GeneratorExit):
                    raise
                name = getattr(hook, "__name__", None) or shorten(hook)
                self._log.error("hook.failed", hook=name, job_id=letter.id, exc_info=error)
