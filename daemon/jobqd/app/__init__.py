"""The composition root: puts the daemon together, runs it, and looks whether it could run."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

import uvloop

from jobqd.app import signals
from jobqd.app.daemon import Daemon, End
from jobqd.app.leaving import leave_within
from jobqd.app.loops import Crash
from jobqd.app.reload import Again, Configuration
from jobqd.app.unknown import unknown_types
from jobqd.clock import Log, SystemClock, World
from jobqd.drive import drive
from jobqd.duties import startup
from jobqd.duties.startup import Finding
from jobqd.errors import EX_CONFIG, EX_SOFTWARE, ConfigError, StartError, StoreError
from jobqd.handlers import Handlers, explained, load_handlers
from jobqd.keys import Keys
from jobqd.logs import LogSystem, RunLog, configure
from jobqd.settings import Loaded, Settings
from jobqd.settings.local import local_address
from jobqd.store import Target
from jobqd.store.faults import REACTIONS, reason_of
from jobqd.store.tracking import TrackedLink
from jobqd.systemd import Notifier

__all__ = ["Finding", "check", "run"]


def run(
    loaded: Loaded, *, again: Again | None = None, burst: bool = False, environ: Mapping[str, str] = os.environ
) -> int:
    """Run the daemon until a signal, or with `burst` until nothing is left to do; returns the exit status.

    `again` reads the configuration once more, for a reload; without it a reload changes nothing. Raises ConfigError if
    the daemon cannot start as configured.
    """
    signals.hold_back()
    # What the watchdog's SIGABRT, or a crash of C code, leaves in the journal: the stack of every thread.
    with suppress(OSError, ValueError, RuntimeError):
        faulthandler.enable()
    settings = loaded.settings
    logs = configure(settings.log_format, settings.log_level, environ=environ)
    try:
        for warning in loaded.warnings:
            logs.logger.warning("config.warning", problem=warning)
        handlers = load_handlers(settings.handlers, settings.app_dir)
        for warning in unknown_types(settings, handlers):
            logs.logger.warning("config.warning", problem=warning)
        configuration = Configuration(settings, again or (lambda _: loaded), environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            try:
                world = _world(logs)
                end = _drive(loop, _life(configuration, handlers, logs, world, burst=burst), world.log)
            except BaseException as error:
                leave_within(loop, logs, EX_CONFIG if isinstance(error, ConfigError) else EX_SOFTWARE)
                raise
            leave_within(loop, logs, end.status)
            if end.hard:
                # Threads cannot be stopped, and Redis may hang: waiting for either would hang the stop.
                logs.close()
                os._exit(end.status)
    except StartError as error:
        logs.logger.critical("daemon.start_failed", problem=str(error), exc_info=error.__cause__)
        return EX_SOFTWARE
    except BaseException:
        logs.close()
        raise
    # The log is closed by an atexit function of its own: threads are waited for before.
    return end.status


async def _life(configuration: Configuration, handlers: Handlers, logs: LogSystem, world: World, *, burst: bool) -> End:
    daemon = Daemon(
        configuration, handlers, world, Notifier(configuration.environ), set_log_level=logs.set_level, burst=burst
    )
    try:
        return await daemon.main()
    except Crash:
        # A daemon half of whose parts have died is worse than none: the next one takes its jobs back.
        return End(EX_SOFTWARE, hard=True)


def _drive(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, End], log: Log) -> End:
    """Run the daemon to its end; its task is cancelled by nobody but an application that cancels all there are."""
    try:
        return drive(loop, loop.create_task(main), log)
    except asyncio.CancelledError:
        log.critical("daemon.crashed", part="life", exc_info=True)
        return End(EX_SOFTWARE, hard=True)


def _world(logs: LogSystem) -> World:
    def end() -> None:
        logs.close()
        os._exit(EX_SOFTWARE)

    clock = SystemClock()
    return World(clock, random.random, RunLog(logs.logger, clock, also=logs.take_left_out), end)


def check(loaded: Loaded) -> list[Finding]:
    """Import the handlers, reach Redis and judge it; returns what was found. Raises ConfigError for a bad URL."""
    settings = loaded.settings
    return [*_check_handlers(settings), *asyncio.run(_check_redis(loaded)), *_check_metrics(settings)]


def _check_handlers(settings: Settings) -> list[Finding]:
    try:
        handlers = load_handlers(settings.handlers, settings.app_dir)
    except ConfigError as error:
        return [Finding(False, "handlers", str(error))]
    except StartError as error:
        return [Finding(False, "handlers", explained(error))]
    found = Finding(True, "handlers", f"{len(handlers)}: {', '.join(handlers.types)}")
    return [found, *(Finding(None, "jobs", warning) for warning in unknown_types(settings, handlers))]


def _check_metrics(settings: Settings) -> list[Finding]:
    if not settings.metrics:
        return []
    from jobqd.metrics.look import find_endpoint  # noqa: PLC0415 - most daemons serve none

    return [find_endpoint(local_address(settings.metrics, settings.instance))]


async def _check_redis(loaded: Loaded) -> list[Finding]:
    settings = loaded.settings
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
        return [Finding(False, "redis", _unreached(loaded, target, error))]
    finally:
        await link.close()
    where = target.name if server in target.name else f"{server}, {target.name}"
    answers = Finding(True, "redis", f"answers at {where}")
    return [answers, *startup.judge(info, allow_eviction=settings.allow_eviction), *able]


def _unreached(loaded: Loaded, target: Target, error: StoreError) -> str:
    said = reason_of(error, target.name)
    lines = [f"{REACTIONS[error.fault].meaning} ({target.name}): {said}", loaded.redis_origin]
    if loaded.sources.get("redis_url") == "default":
        lines.append("to try it out without a Redis: JOBQD_REDIS_URL=embedded://./var/redis, with jobqd[embedded]")
    return "\n".join(lines)
