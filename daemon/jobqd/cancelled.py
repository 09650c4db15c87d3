"""Telling our own cancellation from one that the application's code lets escape."""

from __future__ import annotations

import asyncio


def cancels_us(error: BaseException) -> bool:
    """Whether the current task is being cancelled, and not one that it awaits.

    An application that writes `task.cancel(); await task` raises CancelledError too.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
