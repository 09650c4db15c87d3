"""One daemon's life: it starts, serves, and stops in the one order that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple, TypeVar

from jobqd import __version__
from jobqd.app import signals
from jobqd.app.doorbell import Doorbell
from jobqd.app.lifespan import Lifespan
from jobqd.app.loops import Loops
from jobqd.app.parts import Parts
from jobqd.app.preparation import Preparation
from jobqd.app.reload import Configuration, Reloader
from jobqd.app.shutdown import Shutdown
from jobqd.app.unknown import unknown_types
from jobqd.app.vouch import Voucher
from jobqd.clock import World
from jobqd.errors import EX_SOFTWARE, StoreError
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.keys import Keys, Seat
from jobqd.lockfile import InstanceLock, ProgramsLock, place_of, socket_path
from jobqd.settings import Settings
from jobqd.store import Target
from jobqd.systemd import Notifier, watchdog_timeout

T = TypeVar("T")

_LIFESPAN_PATIENCE = 10.0
_CLOSE_PATIENCE = 1.0


class End(NamedTuple):
    """How the process should exit. `hard`: at once, for something still runs in it that cannot be ended."""

    status: int = 0
    hard: bool = False


class Daemon:
    """Starts the parts, waits for a signal, stops the parts. To be made on the running loop."""

    def __init__(
        self, configuration: Configuration, handlers: Handlers, world: World, notifier: Notifier, *,
        set_log_level: Callable[[str], None], burst: bool = False,
    ) -> None:  # fmt: skip
        self._configuration = configuration
        self._settings = settings = configuration.settings
        self._handlers = handlers
        self._world = world
        self._log = world.log
        self._notifier = notifier
        self._set_log_level = set_log_level
        self._burst = burst
        self._clock = world.clock
        self._target = Target.of(settings)
        keys = Keys(settings.key_prefix, settings.queue)
        self._seat = Seat(keys, secrets.token_hex(8), settings.lease)
        self._began = self._clock.monotonic()
        self._stop, self._skip = asyncio.Event(), asyncio.Event()
        self._state = "starting"
        self._stuck = False
        self._loops = Loops(world.log)
        self._lifespan = Lifespan(handlers.lifespan_function, world.log)
        self._watchdog = watchdog_timeout(configuration.environ)

    async def main(self) -> End:
        """Start, serve, stop. Raises ConfigError, StartError, and Crash if a part of the daemon crashed."""
        signals.catch_stops(asyncio.get_running_loop(), self._on_stop)
        settings, keys = self._settings, self._seat.keys
        self._log.info(
            "daemon.starting", version=__version__, redis=self._target.name, queue=keys.ready,
            instance=settings.instance, worker=self._seat.worker,
        )  # fmt: skip
        place = place_of(self._target.name, self._target.database, keys.ready)
        async with AsyncExitStack() as stack:
            # What is entered first is left last: whoever gets the lock knows that nothing of this daemon is left.
            lock = stack.enter_context(InstanceLock(settings.runtime_dir, settings.instance, place))
            stack.push_async_callback(self._loops.close)
            programs = ProgramsLock(settings.runtime_dir, settings.instance, place)
            stack.callback(programs.close)
            guardian = Guardian(programs.descriptor)
            stack.callback(guardian.close)
            await self._start_embedded(stack, guardian)
            parts = Parts(
                settings, self._handlers, self._target, self._seat, self._world, guardian, watchdog=self._watchdog
            )
            stack.push_async_callback(self._close, parts)
            self._serve_metrics(parts, stack)
            reloader = self._reloader(parts)
            doorbell = Doorbell(socket_path(settings.runtime_dir, settings.instance, place), reloader.reload, self._log)
            await doorbell.open()
            stack.callback(doorbell.close)
            self._attend(parts, reloader)
            end = await self._loops.guard(self._live(parts, lock, programs))
        self._log.info("daemon.stopped", duration=self._clock.monotonic() - self._began)
        return end

    async def _close(self, parts: Parts) -> None:
        """Close every connection; what hangs is left to the end of the process."""
        if self._stuck:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await parts.close()

    async def _start_embedded(self, stack: AsyncExitStack, guardian: Guardian) -> None:
        if not self._settings.redis_url.startswith("embedded:"):
            return
        from jobqd.embedded import EmbeddedServer, directory  # noqa: PLC0415 - most daemons run on another server

        server = EmbeddedServer(directory(self._settings.redis_url), guardian)
        await server.start()
        stack.push_async_callback(server.stop)

    def _serve_metrics(self, parts: Parts, stack: AsyncExitStack) -> None:
        if not self._settings.metrics:
            return
        from jobqd.app.metering import endpoint  # noqa: PLC0415 - only a daemon that serves figures pays for it

        served = endpoint(self._settings, parts, self._target, self._seat.keys, self._world)
        served.start()
        stack.callback(served.close)
        parts.metrics_problem = lambda: served.problem

    def _reloader(self, parts: Parts) -> Reloader:
        def adopt(settings: Settings) -> None:
            parts.adopt(settings)
            self._set_log_level(settings.log_level)

        return Reloader(
            self._configuration, self._notifier, self._log,
            adopt=adopt, warn=lambda settings: unknown_types(settings, self._handlers), state=lambda: self._state,
            clock=self._clock,
        )  # fmt: skip

    def _attend(self, parts: Parts, reloader: Reloader) -> None:
        """Listen to signals and to the watchdog for the whole of this life, the wait for Redis included."""
        orders = signals.Orders(self._ask_to_stop, reloader.ask, parts.rest)
        signals.catch(asyncio.get_running_loop(), orders)
        voucher = Voucher(self._notifier, self._world, self._watchdog, pulses=parts.pulses, stuck=parts.stuck)
        self._loops.start("vouch", voucher.run(), endless=True)
        self._loops.start("reload", reloader.run(), endless=True)

    def _on_stop(self) -> None:
        """The first signal asks for a stop; a second one does not wait for running jobs."""
        if self._stop.is_set() and not self._skip.is_set():
            self._log.info("daemon.hurrying")
            self._skip.set()
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._loops.expect_ends()
        self._stop.set()

    async def _live(self, parts: Parts, lock: InstanceLock, programs: ProgramsLock) -> End:
        """Prepare, serve, stop: between the first and the last there is a Redis, or there was one."""
        preparation = Preparation(parts, self._seat, lock, programs, self._notifier, self._world)
        if not await self._unless_stopped(preparation.run()):
            return End()
        try:
            if not await self._enter_lifespan(parts):
                return End()
            shutdown = await self._serve(parts)
            self._stuck = shutdown.stuck
            if shutdown.clean:
                # Whatever Redis could not be told is for the next holder to take back.
                lock.forget()
            shutdown.countdown.allow(_LIFESPAN_PATIENCE)
        finally:
            parts.heartbeat.stop()
            left = await self._lifespan.leave(_LIFESPAN_PATIENCE)
        return End(0 if left else EX_SOFTWARE, hard=self._stuck)

    async def _enter_lifespan(self, parts: Parts) -> bool:
        """Start the application; false if a stop came first. A database that it waits for must not hold that up."""

        async def enter() -> bool:
            parts.services.state = await self._lifespan.enter()
            return True

        entered = await self._unless_stopped(enter(), _LIFESPAN_PATIENCE)
        if not entered:
            self._log.info("lifespan.cut_short")
        return bool(entered)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T], patience: float = _CLOSE_PATIENCE) -> T | None:
        """Do the work; None if a stop is asked for before it is done. It is cut short then: nothing is leased yet.

        `patience`: seconds it has to end in, or until a second signal.
        """
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        hurry = asyncio.ensure_future(self._skip.wait())
        await asyncio.wait((task, hurry), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if task.done() and not task.cancelled():
            task.exception()  # nobody asks what came of it
        return None

    async def _serve(self, parts: Parts) -> Shutdown:
        """Run until a stop is asked for, then stop; returns how that went."""
        parts.heartbeat.start()
        # What start-up left behind lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        claiming = self._start_loops(parts)
        self._log.info(
            "daemon.ready", concurrency=parts.settings.concurrency, queue=self._seat.keys.ready,
            types=",".join(self._handlers.types), duration=self._clock.monotonic() - self._began,
        )  # fmt: skip
        self._state = "running"
        self._notifier.ready(f"{parts.settings.concurrency} workers")
        await self._stop.wait()
        self._state = "stopping"
        shutdown = Shutdown(parts, self._loops, self._notifier, self._world, self._skip)
        await shutdown.run(claiming)
        if not shutdown.stuck:
            await self._sign_off(parts)
        return shutdown

    def _start_loops(self, parts: Parts) -> asyncio.Task[None]:
        """Start every loop; one that crashes ends the daemon. Returns the claimer's, which a stop awaits first."""
        start, supervisor = self._loops.start, parts.supervisor
        start("settle", supervisor.settle())
        start("promote", supervisor.periodic("promote", parts.promoter))
        start("recover", supervisor.periodic("recover", parts.recoverer))
        start("walk", supervisor.periodic("walk", parts.walker))
        start("memory", supervisor.periodic("memory", parts.memory))
        start("status", supervisor.periodic("status", parts.status_line(self._notifier)))
        start("progress", supervisor.on_demand("progress", parts.progress))
        start("wakeup", parts.wakeup.run(self._stop))
        start("heartbeat", parts.heartbeat.died())
        if self._burst:
            start("burst", supervisor.periodic("burst", parts.burst(self._ask_to_stop)))
        return start("claim", parts.claimer.run())

    async def _sign_off(self, parts: Parts) -> None:
        """Take this daemon off the list of those that run."""
        keys, worker = self._seat.keys, self._seat.worker
        if parts.outage.away_since is not None:
            return
        # A claim whose reply was lost is still asked for, by its record, when its jobs are taken back.
        gone = [keys.daemon(worker)] if parts.claimer.unanswered else [keys.daemon(worker), keys.claim(worker)]
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await parts.link.command("DEL", *gone)
                await parts.link.command("ZREM", keys.daemons, worker)
        except (StoreError, TimeoutError) as error:
            self._log.debug("daemon.presence_left", error=str(error))
