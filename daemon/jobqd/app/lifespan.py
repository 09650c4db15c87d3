"""The application's lifespan around the daemon's life: entered before the first job, left after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from jobqd.cancelled import cancels_us
from jobqd.clock import Log
from jobqd.errors import StartError
from jobqd.texts import class_name, text_of

Function = Callable[[], AbstractAsyncContextManager[Any]]


class Lifespan:
    """Enters and leaves what `@handlers.lifespan` decorates; does nothing where there is none."""

    def __init__(self, function: Function | None, log: Log) -> None:
        self._function = function
        self._log = log
        self._manager: AbstractAsyncContextManager[Any] | None = None

    async def enter(self) -> Any:
        """Start the application; returns what its lifespan yields, None without one. Raises StartError."""
        if self._function is None:
            return None
        try:
            manager = self._function()
            state = await manager.__aenter__()
        except (Exception, asyncio.CancelledError) as error:
            if cancels_us(error):
                raise
            raise StartError(f"the lifespan of the handlers raised {class_name(error)}: {text_of(error)}") from error
        self._manager = manager
        return state

    async def leave(self, patience: float) -> bool:
        """Let the application end, at most so many seconds; false, and a line in the log, if it could not."""
        manager, self._manager = self._manager, None
        if manager is None:
            return True
        try:
            async with asyncio.timeout(patience) as limit:
                await manager.__aexit__(None, None, None)
        except (Exception, asyncio.CancelledError) as error:
            if cancels_us(error):
                raise
            late = limit.expired()
            problem = f"it took longer than {patience:g} s" if late else f"{class_name(error)}: {text_of(error)}"
            self._log.error("lifespan.failed", problem=problem, exc_info=None if late else error)
            return False
        return True
