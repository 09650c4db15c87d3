"""The end of the process: what the application left running does not hold it up for long."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from jobqd.logs import LogSystem

PATIENCE = 3.0
"""Seconds for the application's tasks, threads and atexit functions once the daemon itself has stopped."""


def leave_within(loop: asyncio.AbstractEventLoop, logs: LogSystem, status: int, patience: float = PATIENCE) -> None:
    """End the process with this status by then, unless it has ended by itself.

    asyncio and the interpreter wait without a limit: for tasks that ignore their cancel, and for every thread of an
    executor, that of `asyncio.to_thread` among them.
    """

    def leave() -> None:
        logs.logger.warning("daemon.left_behind", names=", ".join(_left(loop)) or "an atexit function")
        logs.close()
        os._exit(status)

    timer = threading.Timer(patience, leave)
    timer.name, timer.daemon = "jobqd-leaving", True
    timer.start()


def _left(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return the names of what still runs, but for what waits for it."""
    tasks = [] if loop.is_closed() else [task for task in asyncio.all_tasks(loop) if not _waits_for_threads(task)]
    threads = [thread for thread in threading.enumerate() if not thread.daemon and not _waits(thread)]
    return [*(f"task {task.get_name()}" for task in tasks), *(f"thread {thread.name}" for thread in threads)]


def _waits_for_threads(task: asyncio.Task[Any]) -> bool:
    return "shutdown" in getattr(task.get_coro(), "__qualname__", "")


def _waits(thread: threading.Thread) -> bool:
    # The second is the one in which the event loop waits for those of its executor.
    return thread is threading.main_thread() or thread.name.endswith("(_do_shutdown)")
