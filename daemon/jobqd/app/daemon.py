"""One daemon's life: it starts, serves, and stops in the one order that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from jobqd import __version__
from jobqd.app.parts import Parts
from jobqd.clock import World
from jobqd.duties import startup
from jobqd.errors import ConfigError, StartError, StoreError
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.keys import Keys, Seat
from jobqd.lockfile import InstanceLock
from jobqd.runs import Ending, Interrupted
from jobqd.settings import Settings
from jobqd.store import Target
from jobqd.systemd import Notifier

T = TypeVar("T")

_READY_WITHOUT_REDIS = 10.0
_HOOKS_PATIENCE = 10.0


class Daemon:
    """Starts the parts, waits for a signal, stops the parts."""

    def __init__(
        self, settings: Settings, handlers: Handlers, world: World, notifier: Notifier, *, burst: bool = False
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._world = world
        self._log = world.log
        self._notifier = notifier
        self._burst = burst
        self._clock = world.clock
        self._target = Target.of(settings)
        keys = Keys(settings.key_prefix, settings.queue)
        self._seat = Seat(keys, secrets.token_hex(8), settings.lease)
        self._began = self._clock.monotonic()
        self._stop, self._skip = asyncio.Event(), asyncio.Event()

    async def main(self) -> bool:
        """Start, serve, stop. Returns whether handlers are left that cannot be stopped. Raises ConfigError."""
        self._catch_signals()
        settings, keys = self._settings, self._seat.keys
        self._log.info(
            "daemon.starting", version=__version__, redis=self._target.name, queue=keys.ready,
            instance=settings.instance, worker=self._seat.worker,
        )  # fmt: skip
        place = f"{self._target.name}/{self._target.database} {keys.ready}"
        async with AsyncExitStack() as stack:
            lock = stack.enter_context(InstanceLock(settings.runtime_dir, settings.instance, place))
            guardian = Guardian()
            stack.callback(guardian.close)
            await self._start_embedded(stack, guardian)
            parts = Parts(settings, self._handlers, self._target, self._seat, self._world, guardian)
            stack.push_async_callback(parts.close)
            stuck = False
            if await self._reach_redis(parts) and await self._take_back(parts, lock):
                stuck = await self._serve(parts, stack)
                # Whatever Redis could not be told is for the next holder to take back.
                lock.release(clean=not len(parts.runs) and not parts.claimer.unanswered)
        self._log.info("daemon.stopped", duration=self._clock.monotonic() - self._began)
        return stuck

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        # A terminal that was closed: stop in order, and wait for running jobs however often it is sent.
        loop.add_signal_handler(signal.SIGHUP, self._stop.set)

    def _on_signal(self) -> None:
        """The first signal asks for a stop; a second one does not wait for running jobs."""
        if self._stop.is_set() and not self._skip.is_set():
            self._log.info("daemon.hurrying")
            self._skip.set()
        self._stop.set()

    async def _start_embedded(self, stack: AsyncExitStack, guardian: Guardian) -> None:
        if not self._settings.redis_url.startswith("embedded:"):
            return
        from jobqd.embedded import EmbeddedServer, directory  # noqa: PLC0415 - most daemons run on another server

        server = EmbeddedServer(directory(self._settings.redis_url), guardian)
        await server.start()
        stack.push_async_callback(server.stop)

    async def _reach_redis(self, parts: Parts) -> bool:
        """Wait for Redis and judge it; false if stopped meanwhile. Raises ConfigError for one that must not be used."""
        told = False

        def waiting(seconds: float) -> None:
            nonlocal told
            if seconds >= _READY_WITHOUT_REDIS and not told:
                told = True
                # Whatever starts the unit must not hang for want of a Redis.
                self._notifier.ready(f"waiting for Redis at {self._target.name}")

        info = await startup.wait_for_redis(
            parts.link, parts.outage, self._clock, stopped=self._stop.is_set, on_wait=waiting
        )
        if info is None:
            return False
        for finding in startup.judge(info, allow_eviction=self._settings.allow_eviction):
            if finding.ok is False:
                raise ConfigError(finding.message)
            if finding.ok is None:
                self._log.warning("redis.warning", subject=finding.subject, problem=finding.message)
        await self._patiently(parts, lambda: startup.claim_prefix(parts.link, self._seat.keys))
        return not self._stop.is_set()

    async def _take_back(self, parts: Parts, lock: InstanceLock) -> bool:
        """Take the jobs of a dead predecessor back; only then is it forgotten. False if stopped meanwhile."""
        predecessor = lock.predecessor
        if predecessor is not None:
            taken = await self._patiently(parts, lambda: parts.recoverer.take_back(predecessor))
            if taken:
                self._log.warning("daemon.took_back", count=taken, predecessor=predecessor)
        if self._stop.is_set():
            return False
        lock.record(self._seat.worker)
        return True

    async def _patiently(self, parts: Parts, step: Callable[[], Awaitable[T]]) -> T | None:
        """Take a step as often as it needs for want of Redis; None if stopped meanwhile."""
        while not self._stop.is_set():
            try:
                return await step()
            except StoreError as error:
                await self._clock.sleep(parts.outage.failed("start", error))
        return None

    async def _serve(self, parts: Parts, stack: AsyncExitStack) -> bool:
        """Run until a stop is asked for, then stop; returns whether handlers are left that cannot be stopped."""
        parts.services.state = await self._enter_lifespan(stack)
        parts.heartbeat.start()
        stack.callback(parts.heartbeat.stop)
        # What start-up left behind lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            claiming = self._start_loops(parts, tasks)
            self._log.info(
                "daemon.ready", concurrency=self._settings.concurrency, queue=self._seat.keys.ready,
                types=",".join(self._handlers.types), duration=self._clock.monotonic() - self._began,
            )  # fmt: skip
            self._notifier.ready(f"{self._settings.concurrency} workers")
            await self._stop.wait()
            stuck = await self._shut_down(parts, claiming)
        await self._leave(parts)
        return stuck

    async def _enter_lifespan(self, stack: AsyncExitStack) -> Any:
        """Start the application; returns what its lifespan yields, None without one. Raises StartError."""
        if self._handlers.lifespan_function is None:
            return None
        try:
            return await stack.enter_async_context(self._handlers.lifespan_function())
        except Exception as error:
            raise StartError(f"the lifespan of the handlers raised {type(error).__name__}: {error}") from error

    def _start_loops(self, parts: Parts, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        """Start every loop; one that crashes ends the daemon. Returns the claimer's, which a stop awaits first."""
        supervisor = parts.supervisor
        tasks.create_task(supervisor.settle())
        tasks.create_task(supervisor.periodic("promote", parts.promoter))
        tasks.create_task(supervisor.periodic("recover", parts.recoverer))
        tasks.create_task(supervisor.periodic("walk", parts.walker))
        tasks.create_task(supervisor.periodic("memory", parts.memory))
        tasks.create_task(supervisor.periodic("status", parts.status_line(self._notifier)))
        tasks.create_task(supervisor.on_demand("progress", parts.progress))
        tasks.create_task(parts.wakeup.run(self._stop))
        tasks.create_task(parts.heartbeat.died())
        if self._burst:
            tasks.create_task(supervisor.periodic("burst", parts.burst(self._stop.set)))
        return tasks.create_task(parts.claimer.run())

    async def _shut_down(self, parts: Parts, claiming: asyncio.Task[None]) -> bool:
        """Claim no more, drain, hand back, flush: in this order, so that nothing is in two hands or in none."""
        settings = self._settings
        parts.presence.status = "draining"
        self._notifier.stopping(f"{parts.pool.busy} jobs running")
        self._log.info("daemon.draining", running=parts.pool.busy, timeout=settings.drain_timeout)
        parts.claimer.stop()
        await claiming
        left = await parts.pool.drain(self._skip, settings.max_interruptions)
        for run in left:
            # Threads, and coroutines that ignore their cancel: this process ends as soon as their jobs are handed back.
            parts.settler.submit(run, Interrupted(str(Ending.STOP)))
        try:
            async with asyncio.timeout(max(1.0, settings.drain_timeout)):
                await parts.settler.wait_idle()
        except TimeoutError:
            parts.settler.abandon(parts.reporter.not_recorded)
        await parts.reporter.wait_hooks(_HOOKS_PATIENCE)
        parts.reporter.flush()
        parts.supervisor.stop()
        parts.heartbeat.stop()
        return bool(left)

    async def _leave(self, parts: Parts) -> None:
        """Take this daemon off the list of those that run."""
        keys, worker = self._seat.keys, self._seat.worker
        if parts.outage.away_since is not None:
            return
        try:
            await parts.link.command("DEL", keys.daemon(worker), keys.claim(worker))
            await parts.link.command("ZREM", keys.daemons, worker)
        except StoreError as error:
            self._log.debug("daemon.presence_left", error=str(error))
