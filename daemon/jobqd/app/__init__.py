"""The composition root: puts the daemon together, runs it, and looks whether it could run."""

from __future__ import annotations

import asyncio
import difflib
import os
import random
from collections.abc import Coroutine, Mapping
from typing import Any

import uvloop

from jobqd.app.daemon import Daemon
from jobqd.clock import SystemClock, World
from jobqd.duties import startup
from jobqd.duties.startup import Finding
from jobqd.errors import EX_SOFTWARE, ConfigError, StartError, StoreError
from jobqd.handlers import Handlers, load_handlers
from jobqd.keys import Keys
from jobqd.logs import LogSystem, configure
from jobqd.settings import Loaded, Settings
from jobqd.store import Target
from jobqd.store.tracking import TrackedLink
from jobqd.systemd import Notifier

__all__ = ["Finding", "check", "run"]


def run(loaded: Loaded, *, burst: bool = False, environ: Mapping[str, str] = os.environ) -> int:
    """Run the daemon until a signal, or with `burst` until nothing is left to do; returns the exit status.

    Raises ConfigError if it cannot start as configured.
    """
    settings = loaded.settings
    logs = configure(settings.log_format, settings.log_level, environ=environ)
    try:
        for warning in loaded.warnings:
            logs.logger.warning("config.warning", problem=warning)
        handlers = load_handlers(settings.handlers, settings.app_dir)
        for warning in unknown_types(settings, handlers):
            logs.logger.warning("config.warning", problem=warning)
        daemon = Daemon(settings, handlers, _world(logs), Notifier(environ), burst=burst)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                stuck = _drive(runner.get_loop(), daemon.main(), logs.logger)
            except ExceptionGroup as crash:
                # A daemon half of whose parts have died is worse than none: the next one takes its jobs back. It ends
                # here and now, since its lock is open already and threads of handlers may still run.
                logs.logger.critical("daemon.crashed", exc_info=crash)
                logs.close()
                os._exit(EX_SOFTWARE)
            if stuck:
                # Threads cannot be stopped; their jobs were handed back, and waiting for them would hang the stop.
                logs.close()
                os._exit(0)
    except StartError as error:
        logs.logger.critical("daemon.start_failed", problem=str(error), exc_info=error.__cause__)
        return EX_SOFTWARE
    finally:
        logs.close()
    return 0


def _drive(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, bool], log: Any) -> bool:
    """Run the daemon to its end, whatever the application's tasks do.

    asyncio lets the SystemExit and KeyboardInterrupt of any task out of the loop; one that a handler started must not
    end the daemon. Whoever awaits that task gets its exception all the same.
    """
    task = loop.create_task(main)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            log.exception("loop.exit_refused", problem=repr(error))


def _world(logs: LogSystem) -> World:
    def end() -> None:
        logs.close()
        os._exit(EX_SOFTWARE)

    return World(SystemClock(), random.random, logs.logger, end)


def check(loaded: Loaded) -> list[Finding]:
    """Import the handlers, reach Redis and judge it; returns what was found. Raises ConfigError for a bad URL."""
    return [*_check_handlers(loaded.settings), *asyncio.run(_check_redis(loaded.settings))]


def _check_handlers(settings: Settings) -> list[Finding]:
    try:
        handlers = load_handlers(settings.handlers, settings.app_dir)
    except ConfigError as error:
        return [Finding(False, "handlers", str(error))]
    found = Finding(True, "handlers", f"{len(handlers)}: {', '.join(handlers.types)}")
    return [found, *(Finding(None, "jobs", warning) for warning in unknown_types(settings, handlers))]


def unknown_types(settings: Settings, handlers: Handlers) -> list[str]:
    """Return a sentence for each type that has settings but no handler: most likely it is misspelt."""
    warnings = []
    for name in settings.jobs:
        if name not in handlers:
            near = difflib.get_close_matches(name, handlers.types, 1)
            hint = f"; did you mean [jobs.{near[0]}]?" if near else ""
            warnings.append(f"[jobs.{name}] has settings, but there is no handler of that type{hint}")
    return warnings


async def _check_redis(settings: Settings) -> list[Finding]:
    target = Target.of(settings)
    keys = Keys(settings.key_prefix, settings.queue)
    link = TrackedLink(target, keys.ready, keys.control, on_change=lambda: None, on_control=lambda _: None)
    try:
        await link.command("PING")
        info = await startup.redis_info(link)
        able = [await startup.try_scripts(link, keys), startup.wakeup(link.refused)]
        server = link.server
    except StoreError as error:
        if settings.redis_url.startswith("embedded:"):
            return [Finding(None, "redis", "the embedded Redis does not run: it runs while the daemon does")]
        return [Finding(False, "redis", f"{target.name}: {error}")]
    finally:
        await link.close()
    where = target.name if server in target.name else f"{server}, {target.name}"
    answers = Finding(True, "redis", f"answers at {where}")
    return [answers, *startup.judge(info, allow_eviction=settings.allow_eviction), *able]
