"""The application's hooks for dead letters: a bounded number at once, and nothing that one raises harms another."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextlib import suppress
from itertools import chain

from jobqd.cancelled import cancels_us
from jobqd.clock import Log
from jobqd.handlers import DeadLetter, Handlers
from jobqd.units import shorten

AT_ONCE = 32
"""For so many letters at once."""
WAITING_MAX = 1000
"""So many letters wait for that; one more, and its hooks are not called."""
WAITING_BYTES = 16 * 2**20
"""Memory of the letters that wait, from which on no more do: each may hold a megabyte of fields."""
TIME_LIMIT = 60.0
"""Seconds for one hook: one that hangs must not keep a place for ever."""

_CROWD = "too many letters wait for theirs"
_STOP = "the daemon stops"


class DeadHooks:
    """Calls the `on_dead` hooks of each letter one after the other, in a task."""

    def __init__(self, log: Log, handlers: Handlers) -> None:
        self._log = log
        self._handlers = handlers
        self._waiting: deque[DeadLetter] = deque()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False

    @property
    def wanted(self) -> bool:
        """Whether there is a hook to call."""
        return bool(self._handlers.dead_hooks)

    def call(self, letter: DeadLetter) -> None:
        """Call every hook for a letter, when its turn comes."""
        if self._over:
            self._log.warning("hook.skipped", job_id=letter.id, job_type=letter.type, reason=_STOP)
        elif len(self._tasks) < AT_ONCE:
            self._start(letter)
        elif len(self._waiting) < WAITING_MAX and self._bytes < WAITING_BYTES:
            self._waiting.append(letter)
            self._bytes += _memory(letter)
        else:
            self._log.warning("hook.skipped", job_id=letter.id, job_type=letter.type, reason=_CROWD)

    async def wait(self, timeout: float) -> None:
        """Give hooks under way, and those that wait for their turn, so many seconds to end; then none is called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        self._over = True
        if self._waiting:
            self._log.warning("hook.skipped", count=len(self._waiting), reason=_STOP)
            self._waiting.clear()

    def _start(self, letter: DeadLetter) -> None:
        task = asyncio.get_running_loop().create_task(self._call_all(letter))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and len(self._tasks) < AT_ONCE:
            letter = self._waiting.popleft()
            self._bytes -= _memory(letter)
            self._start(letter)

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


def _memory(letter: DeadLetter) -> int:
    """Return the bytes of memory that a letter's texts take."""
    texts = chain(letter.fields.keys(), letter.fields.values(), (letter.error, letter.traceback))
    return sum(map(sys.getsizeof, texts))
