"""A child's life: import the application, run one job, tell how it ended, end."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from jobqd.children.outcomes import outcome_message
from jobqd.children.process import DUMP_SIGNAL
from jobqd.children.reports import TellingGuardian, WireCheckpoints, WireProgress, WireSink
from jobqd.children.wire import Wire
from jobqd.clock import SystemClock, World
from jobqd.context import Services
from jobqd.drive import drive
from jobqd.errors import ConfigError, StartError
from jobqd.executor import Executor
from jobqd.handlers import Handler, Handlers, explained, load_handlers
from jobqd.job import Claimed
from jobqd.logs.record import level_number
from jobqd.logs.system import LogSystem
from jobqd.retry import ERROR_LIMIT
from jobqd.runs import Ending, Policy, Run
from jobqd.texts import class_name, shorten_text, text_of

_WIRE, _LOCK = 3, 4
_NEVER = 10 * 365 * 86400.0


def main() -> None:
    """Run the one job that the daemon sends; the interpreter's own end is skipped, since it can crash or hang."""
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    wire = Wire(_WIRE)
    order = wire.receive()
    if order is None:
        os._exit(1)
    if order["locked"]:
        # For this process's guardian alone: what the application starts must not hold up the next daemon.
        os.set_inheritable(_LOCK, False)
    logs = LogSystem(WireSink(wire), level_number(order["log_level"]), SystemClock())
    try:
        handlers = load_handlers(order["handlers"], Path(order["app_dir"]))
        handler = _handler(handlers, order["fields"]["type"])
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            drive(loop, loop.create_task(_live(wire, order, handlers, handler, logs.logger)), logs.logger)
    except ConfigError as error:
        wire.send({"kind": "refused", "error": shorten_text(str(error), ERROR_LIMIT)})
    except StartError as error:
        wire.send({"kind": "refused", "error": shorten_text(explained(error), ERROR_LIMIT)})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _handler(handlers: Handlers, job_type: str) -> Handler[..., Any]:
    handler = handlers.get(job_type)
    if handler is None:
        raise ConfigError(f"the application on disk has no handler for {job_type!r} any more: restart the daemon")
    return handler


async def _live(wire: Wire, order: dict[str, Any], handlers: Handlers, handler: Handler[..., Any], log: Any) -> None:
    await _Life(wire, order, handlers, handler, log).main()


class _Life:
    """The part on the event loop; to be made there."""

    def __init__(
        self, wire: Wire, order: dict[str, Any], handlers: Handlers, handler: Handler[..., Any], log: Any
    ) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._checkpoints = WireCheckpoints(wire)
        self._services = Services(
            handlers=handlers,
            progress=WireProgress(wire),
            checkpoints=self._checkpoints,
            guardian=TellingGuardian(wire, _LOCK if order["locked"] else None),
            world=World(SystemClock(), random.random, log),
            threads=ThreadPoolExecutor(1, "jobqd-job"),
            max_result=order["max_result"],
        )
        self._executor = Executor(self._services)
        self._run = Run(_claimed(order), handler, _policy(order["max_attempts"]), self._loop.time())

    async def main(self) -> None:
        """Enter the lifespan, run the job, tell its outcome, leave the lifespan. Raises ConfigError."""
        threading.Thread(target=self._listen, name="jobqd-wire", daemon=True).start()
        async with AsyncExitStack() as stack:
            await self._enter_lifespan(stack)
            self._wire.send({"kind": "began"})
            self._run.task = self._loop.create_task(self._perform())
            await self._run.task

    async def _enter_lifespan(self, stack: AsyncExitStack) -> None:
        lifespan = self._services.handlers.lifespan_function
        if lifespan is None:
            return
        try:
            self._services.state = await stack.enter_async_context(lifespan())
        except Exception as error:
            raise ConfigError(f"the lifespan of the handlers raised {class_name(error)}: {text_of(error)}") from error

    async def _perform(self) -> None:
        self._wire.send(outcome_message(await self._executor.execute(self._run)))

    def _listen(self) -> None:
        """Hand what the daemon says to the loop; a child whose daemon is gone ends at once, whatever its loop does."""
        while (message := self._wire.receive()) is not None:
            self._loop.call_soon_threadsafe(self._take, message)
        os._exit(1)

    def _take(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "stop":
                self._run.ask_to_finish()
            case "end":
                # Said by the loop itself: one that a handler holds does not answer.
                self._wire.send({"kind": "ending"})
                self._executor.interrupt(self._run, Ending(message["ending"]))
            case "saved":
                self._checkpoints.answered(message)


def _claimed(order: dict[str, Any]) -> Claimed:
    return Claimed(order["id"], order["fence"], float(order["score"]), order["claimed_at"], order["fields"])


def _policy(max_attempts: int) -> Policy:
    """The daemon keeps all limits; a job here knows only how many attempts there are."""
    return Policy(
        max_attempts=max_attempts, timeout=_NEVER, retry_delay=0.0, retry_max_delay=0.0, job_ttl=_NEVER,
        dead_ttl=_NEVER, max_age=_NEVER, drain_timeout=_NEVER,
    )  # fmt: skip
