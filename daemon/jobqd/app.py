"""The composition root: puts the daemon together, starts it, and stops it in the one order that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import secrets
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from jobqd import __version__
from jobqd.claimer import Claimer
from jobqd.clock import Clock, SystemClock, World
from jobqd.context import Services
from jobqd.duties import startup
from jobqd.duties.burst import Burst
from jobqd.duties.outage import Outage
from jobqd.duties.progress import ProgressWriter
from jobqd.duties.promote import Promoter
from jobqd.duties.recover import Recoverer
from jobqd.duties.report import Reporter
from jobqd.duties.settle import Pending, Settler
from jobqd.duties.startup import Finding
from jobqd.duties.walk import Walker
from jobqd.errors import ConfigError, StoreError
from jobqd.executor import Executor
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers, load_handlers
from jobqd.heartbeat import Heartbeat
from jobqd.keys import Keys, Seat
from jobqd.lockfile import InstanceLock
from jobqd.logs import LogSystem, RunLog, configure
from jobqd.policy import Policies
from jobqd.pool import Pool
from jobqd.runs import Ending, Interrupted, Runs
from jobqd.settings import Loaded, Settings
from jobqd.store import Ledger, Link, SyncLink, Target
from jobqd.supervisor import Supervisor
from jobqd.systemd import Notifier
from jobqd.wakeup import Wakeup

__all__ = ["Finding", "check", "run"]

_READY_WITHOUT_REDIS = 10.0
_BURST_LOOK = 0.1
_STATUS_EVERY = 5.0
_HOOKS_PATIENCE = 10.0


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
        daemon = Daemon(settings, handlers, logs, Notifier(environ), burst=burst)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stuck = runner.run(daemon.main())
            if stuck:
                # Threads cannot be stopped; their jobs were handed back, and waiting for them would hang the stop.
                logs.close()
                os._exit(0)
        return 0
    finally:
        logs.close()


def target_of(settings: Settings) -> Target:
    """Return where Redis is, by the settings."""
    password = settings.redis_password
    return Target(
        settings.redis_url, username=settings.redis_username,
        password=None if password is None else password.get_secret_value(),
        tls_ca=None if settings.tls_ca is None else str(settings.tls_ca),
    )  # fmt: skip


class Daemon:
    """One daemon from its start to its stop."""

    def __init__(
        self, settings: Settings, handlers: Handlers, logs: LogSystem, notifier: Notifier, *,
        burst: bool = False, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._handlers = handlers
        self._log = logs.logger
        self._notifier = notifier
        self._burst = burst
        self._clock = clock or SystemClock()
        self._world = World(self._clock, random.random, self._log)
        self._keys = Keys(settings.key_prefix, settings.queue)
        self._seat = Seat(self._keys, secrets.token_hex(8), settings.lease)
        self._target = target_of(settings)
        self._began = self._clock.monotonic()
        self._draining = False

    async def main(self) -> bool:
        """Start, serve, stop. Returns whether handlers are left that cannot be stopped. Raises ConfigError."""
        self._stop, self._skip = asyncio.Event(), asyncio.Event()
        self._catch_signals()
        self._log.info(
            "daemon.starting", version=__version__, redis=self._target.name, queue=self._keys.ready,
            instance=self._settings.instance, worker=self._seat.worker,
        )  # fmt: skip
        settings = self._settings
        lock = InstanceLock(
            settings.runtime_dir,
            settings.instance,
            f"{self._target.name}/{self._target.database} {self._keys.ready}",
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(lock)
            self._guardian = Guardian()
            stack.callback(self._guardian.close)
            await self._start_embedded(stack)
            self._compose_store(stack)
            if not await self._reach_redis():
                return False
            await self._take_back(lock)
            stuck = await self._serve(stack)
            lock.release(clean=not stuck)
        self._log.info("daemon.stopped", duration=self._clock.monotonic() - self._began)
        return stuck

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            self._skip.set()
        self._stop.set()

    async def _start_embedded(self, stack: AsyncExitStack) -> None:
        if not self._settings.redis_url.startswith("embedded:"):
            return
        from jobqd.embedded import EmbeddedServer, directory  # noqa: PLC0415 - most daemons run on another server

        server = EmbeddedServer(directory(self._settings.redis_url), self._guardian)
        await server.start()
        stack.push_async_callback(server.stop)

    def _compose_store(self, stack: AsyncExitStack) -> None:
        """The parts that work before the application does."""
        settings, clock = self._settings, self._clock
        self._outage = Outage(self._world)
        self._runs = Runs()
        self._policies = Policies(settings, self._handlers)
        self._settle_link, self._link = Link(self._target), Link(self._target)
        stack.push_async_callback(self._settle_link.close)
        stack.push_async_callback(self._link.close)
        ledger = Ledger(
            self._settle_link, self._keys, dead_max=settings.dead_max, trimmed_ttl=settings.job_ttl
        )
        self._reporter = Reporter(self._log, RunLog(self._log, clock), self._handlers)
        self._settler = Settler(
            ledger, self._seat.worker, self._runs, self._outage, self._world, on_settled=self._settled
        )
        self._heartbeat = Heartbeat(
            SyncLink(self._target), self._seat, self._runs, self._outage, self._world, describe=self._describe,
            on_lost=self._on_lost,
        )  # fmt: skip
        self._recoverer = Recoverer(
            self._link, self._keys, ledger, self._policies, self._world, on_dead=self._reporter.dead,
            may_sweep=lambda: self._heartbeat.trust.earned(clock.monotonic()),
        )  # fmt: skip

    async def _reach_redis(self) -> bool:
        """Wait for Redis and judge it; false if stopped meanwhile. Raises ConfigError for one that must not be used."""
        told = False

        def waiting(seconds: float) -> None:
            nonlocal told
            if seconds >= _READY_WITHOUT_REDIS and not told:
                told = True
                # Whatever starts the unit must not hang for want of a Redis.
                self._notifier.ready(f"waiting for Redis at {self._target.name}")

        info = await startup.wait_for_redis(
            self._link, self._outage, self._clock, stopped=self._stop.is_set, on_wait=waiting
        )
        if info is None:
            return False
        for finding in startup.judge(info, allow_eviction=self._settings.allow_eviction):
            if finding.ok is False:
                raise ConfigError(finding.message)
            if finding.ok is None:
                self._log.warning("redis.warning", subject=finding.subject, problem=finding.message)
        await self._patiently(lambda: startup.claim_prefix(self._link, self._keys))
        return not self._stop.is_set()

    async def _take_back(self, lock: InstanceLock) -> None:
        """Take the jobs of a dead predecessor back; only then is it forgotten."""
        if lock.predecessor is not None:
            taken = await self._patiently(lambda: self._recoverer.take_back(lock.predecessor or ""))
            if taken:
                self._log.warning("daemon.took_back", count=taken, predecessor=lock.predecessor)
        if not self._stop.is_set():
            lock.record(self._seat.worker)

    async def _patiently(self, step: Any) -> Any:
        while not self._stop.is_set():
            try:
                return await step()
            except StoreError as error:
                await self._clock.sleep(self._outage.failed("start", error))
        return None

    async def _serve(self, stack: AsyncExitStack) -> bool:
        """Run until a stop is asked for, then stop; returns whether handlers are left that cannot be stopped."""
        state = None
        if self._handlers.lifespan_function is not None:
            state = await stack.enter_async_context(self._handlers.lifespan_function())
        self._compose_work(state)
        self._heartbeat.start()
        stack.callback(self._heartbeat.stop)
        # What start-up left behind lives for ever: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            claiming = self._start_loops(tasks)
            self._log.info(
                "daemon.ready", concurrency=self._settings.concurrency, queue=self._keys.ready,
                types=",".join(self._handlers.types), duration=self._clock.monotonic() - self._began,
            )  # fmt: skip
            self._notifier.ready(f"{self._settings.concurrency} workers")
            await self._stop.wait()
            stuck = await self._shut_down(claiming)
        await self._leave()
        return stuck

    def _compose_work(self, state: Any) -> None:
        """The parts that run jobs."""
        settings = self._settings
        self._progress = ProgressWriter(self._link, self._seat, self._clock)
        executor = Executor(
            Services(
                link=self._link, seat=self._seat, handlers=self._handlers, progress=self._progress,
                guardian=self._guardian, world=self._world, state=state,
                threads=ThreadPoolExecutor(settings.concurrency, "jobqd-job"), max_result=settings.max_result,
            )
        )  # fmt: skip
        self._pool = Pool(
            settings.concurrency, executor, self._runs, self._handlers, self._policies, submit=self._settler.submit,
            on_free=lambda capped: self._claimer.nudge(more=capped), world=self._world,
        )  # fmt: skip
        self._wakeup = Wakeup(
            self._target, self._keys, self._world, on_wake=lambda: self._claimer.nudge(),  # noqa: PLW0108 - it is made after this
            on_cancel=lambda job_id: self._pool.end(job_id, None, Ending.CANCELLED),
        )  # fmt: skip
        self._claimer = Claimer(
            self._seat, self._pool, self._settler, self._wakeup, self._outage, self._world, max_age=settings.max_age
        )
        self._supervisor = Supervisor(
            self._settler, self._outage, self._clock, on_unstuck=lambda: self._claimer.nudge(more=True)
        )

    def _start_loops(self, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        supervisor, settings = self._supervisor, self._settings
        walker = Walker(self._link, self._keys, self._log, max_age=settings.max_age, job_ttl=settings.job_ttl)
        tasks.create_task(supervisor.settle())
        tasks.create_task(supervisor.periodic("promote", Promoter(self._link, self._keys, self._log)))
        tasks.create_task(supervisor.periodic("recover", self._recoverer))
        tasks.create_task(supervisor.periodic("walk", walker))
        tasks.create_task(supervisor.on_demand("progress", self._progress))
        tasks.create_task(self._wakeup.run(self._stop))
        tasks.create_task(self._tell_status())
        if self._burst:
            tasks.create_task(self._stop_when_done())
        return tasks.create_task(self._claimer.run())

    async def _shut_down(self, claiming: asyncio.Task[None]) -> bool:
        """Claim no more, drain, hand back, flush: in this order, so that nothing is in two hands or in none."""
        settings = self._settings
        self._draining = True
        self._notifier.stopping(f"{self._pool.busy} jobs running")
        self._log.info("daemon.draining", running=self._pool.busy, timeout=settings.drain_timeout)
        self._claimer.stop()
        await claiming
        left = await self._pool.drain(self._skip, settings.max_interruptions)
        for run in left:
            # Only threads get here: this process ends as soon as their jobs are handed back.
            self._settler.submit(run, Interrupted(str(Ending.STOP)))
        try:
            async with asyncio.timeout(max(1.0, settings.drain_timeout)):
                await self._settler.wait_idle()
        except TimeoutError:
            self._settler.abandon(self._reporter.not_recorded)
        await self._reporter.wait_hooks(_HOOKS_PATIENCE)
        self._supervisor.stop()
        return bool(left)

    async def _leave(self) -> None:
        """Take this daemon off the list of those that run, and close what only it uses."""
        self._heartbeat.stop()
        try:
            await self._link.command("DEL", self._keys.daemon(self._seat.worker), self._keys.claim(self._seat.worker))
            await self._link.command("ZREM", self._keys.daemons, self._seat.worker)
        except StoreError as error:
            self._log.debug("daemon.presence_left", error=str(error))
        await self._wakeup.link.close()

    async def _stop_when_done(self) -> None:
        burst = Burst(self._link, self._keys, self._handlers.types, self._settings.retry_max_delay)
        while not self._stop.is_set():
            await self._clock.sleep(_BURST_LOOK)
            try:
                if not self._pool.busy and not len(self._settler) and await burst.done():
                    self._stop.set()
            except StoreError as error:
                await self._clock.sleep(self._outage.failed("burst", error))

    async def _tell_status(self) -> None:
        while not self._stop.is_set():
            self._reporter.tick()
            away = self._outage.away_since
            redis = f", Redis away for {self._clock.monotonic() - away:.0f} s" if away is not None else ""
            self._notifier.status(f"{self._settings.concurrency} workers, {self._pool.busy} running{redis}")
            try:
                async with asyncio.timeout(_STATUS_EVERY):
                    await self._stop.wait()
            except TimeoutError:
                continue

    def _settled(self, pending: Pending, answer: str) -> None:
        self._reporter.settled(pending, answer)
        if pending.order.to in ("retrying", "scheduled") and pending.order.delay < 1.0:
            self._supervisor.hasten("promote", pending.order.delay)

    def _on_lost(self, job_id: str, fence: int, reason: str) -> None:
        self._pool.end(job_id, fence, Ending.CANCELLED if reason == "cancelled" else Ending.LOST)

    def _describe(self) -> dict[str, Any]:
        """What this daemon says of itself in Redis; called from the heartbeat's thread."""
        return {
            "instance": self._settings.instance, "host": socket.gethostname(), "pid": os.getpid(),
            "version": __version__, "started_at": f"{self._clock.time() - self._clock.monotonic() + self._began:.3f}",
            "concurrency": self._settings.concurrency, "running": self._pool.busy,
            "types": json.dumps(list(self._handlers.types)), "status": "draining" if self._draining else "running",
        }  # fmt: skip


async def _check(settings: Settings) -> list[Finding]:
    findings = []
    try:
        handlers = load_handlers(settings.handlers, settings.app_dir)
        findings.append(Finding(True, "handlers", f"{len(handlers)}: {', '.join(handlers.types)}"))
    except ConfigError as error:
        findings.append(Finding(False, "handlers", str(error)))
    target = target_of(settings)
    link = Link(target)
    try:
        await link.command("PING")
        findings.append(Finding(True, "redis", f"answers at {target.name}"))
        info = await startup.redis_info(link)
        findings += startup.judge(info, allow_eviction=settings.allow_eviction)
    except StoreError as error:
        findings.append(Finding(False, "redis", f"{target.name}: {error}"))
    finally:
        await link.close()
    return findings


def check(loaded: Loaded) -> list[Finding]:
    """Import the handlers, reach Redis and judge it; returns what was found. Raises ConfigError for a bad URL."""
    return asyncio.run(_check(loaded.settings))
