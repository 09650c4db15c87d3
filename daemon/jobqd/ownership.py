"""Which run a task of the event loop belongs to: its own, or one that its handler started."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from jobqd.runs import Run

_RUN: ContextVar[Run | None] = ContextVar("jobqd_run", default=None)
_owners: WeakKeyDictionary[asyncio.Task[Any], Run] = WeakKeyDictionary()


def own(run: Run) -> None:
    """Let the current task, and all that are started from it, belong to a run."""
    _RUN.set(run)


def owner_of(task: asyncio.Task[Any]) -> Run | None:
    """Return the run that a task belongs to; from any thread."""
    if sys.version_info >= (3, 12):
        return task.get_context().get(_RUN)
    return _owners.get(task)


def trace(loop: asyncio.AbstractEventLoop) -> None:
    """Take note of the owners of tasks, where Python does not show a task's context to others (before 3.12)."""
    if sys.version_info < (3, 12) and loop.get_task_factory() is None:
        loop.set_task_factory(_owned)


def _owned(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **options)
    run = _RUN.get()
    if run is not None:
        _owners[task] = run
    return task
