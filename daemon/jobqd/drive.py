"""Running an event loop to the end of one task, whatever the application's tasks do to the loop."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from jobqd.clock import Log
from jobqd.units import shorten

T = TypeVar("T")


def drive(loop: asyncio.AbstractEventLoop, task: asyncio.Future[T], log: Log) -> T:
    """Run the loop until the task is done; return its result, or raise what it raised.

    asyncio lets the SystemExit and KeyboardInterrupt of any task out of the loop, and any task can stop it; one that
    a handler started must not end the process. Whoever awaits that task gets its exception all the same.
    """
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            log.exception("loop.exit_refused", problem=f"raised {shorten(error)}")
        except RuntimeError:
            # The loop was stopped. A closed one would say so again for ever.
            if task.done() or loop.is_closed():
                raise
            log.error("loop.exit_refused", problem="stopped the event loop")  # noqa: TRY400 - our own frames say nothing
