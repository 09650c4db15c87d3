"""Every part of the daemon, made once and told of the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from jobqd.app.vouch import block_limit
from jobqd.children import Children, Edition
from jobqd.claimer import Claimer
from jobqd.clock import World
from jobqd.context import Services
from jobqd.duties.burst import Burst
from jobqd.duties.checkpoint import CheckpointWriter
from jobqd.duties.memory import MemoryWatch
from jobqd.duties.outage import Outage
from jobqd.duties.progress import ProgressWriter
from jobqd.duties.promote import Promoter
from jobqd.duties.recover import Recoverer
from jobqd.duties.report import Reporter
from jobqd.duties.sandbox import Sandbox, hardened_unit
from jobqd.duties.settle import Pending, Settler
from jobqd.duties.status import Presence, QueueSize, StatusLine, Work
from jobqd.duties.surrender import Surrender
from jobqd.duties.walk import Walker
from jobqd.executor import Executor
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.heartbeat import Heartbeat
from jobqd.keys import Seat
from jobqd.logs import RunLog
from jobqd.loopwatch import LoopWatch
from jobqd.metrics import Observer, Silent, Tally
from jobqd.policy import Policies
from jobqd.pool import Pool
from jobqd.pulse import Pulse
from jobqd.runs import Ending, Runs
from jobqd.settings import Settings
from jobqd.store import Ledger, Link, SyncLink, Target, running
from jobqd.store.call import Argument
from jobqd.store.connect import REPLY_TIMEOUT
from jobqd.supervisor import Supervisor
from jobqd.systemd import Notifier
from jobqd.units import format_duration, shorten
from jobqd.wakeup import Wakeup

_NAMED = 5


class Parts:
    """The parts in the order of their needs; to be made on the running loop. Nothing is started here."""

    def __init__(
        self, settings: Settings, handlers: Handlers, target: Target, seat: Seat, world: World, guardian: Guardian,
        *, watchdog: float | None = None,
    ) -> None:  # fmt: skip
        # A broken producer causes lines without end: those about single jobs are kept to a rate.
        run_log = RunLog.over(world.log, world.clock)
        world = replace(world, log=run_log)
        self.settings, self._handlers, self._world = settings, handlers, world
        self._seat, self._watchdog = seat, watchdog
        self._target, self.redis = target, target.name
        self._ended = 0
        self._edition = Edition()
        self.guardian = guardian
        self.presence = Presence(settings.instance, settings.concurrency, handlers.types, world.clock.time())
        self.outage = Outage(world)
        self.metrics_problem: Callable[[], str | None] = lambda: None
        """Tells why the metrics endpoint does not listen."""
        self.observer: Observer = Tally(handlers.types) if settings.metrics else Silent()
        self.runs = Runs()
        self.policies = Policies(settings, handlers, run_log)
        # Settling has a connection of its own: no other duty may make a result wait.
        self.settle_link, self.link = Link(target), Link(target)
        self.ledger = Ledger(self.settle_link, seat.keys, dead_max=settings.dead_max, trimmed_ttl=settings.job_ttl)
        sandbox = Sandbox(run_log, hardened_unit(os.environ))
        self.reporter = Reporter(run_log, run_log, handlers, sandbox)
        self.settler = Settler(self.ledger, seat.worker, self.runs, self.outage, world, on_settled=self._settled)
        self.progress = ProgressWriter(self.link, seat, world.clock)
        self.services = self._services()
        self.pool = self._pool()
        self.wakeup = Wakeup(
            target, seat.keys, world, on_wake=self._wake, on_cancel=self._cancelled, on_rest=self._rested,
            claiming=lambda: self.claimer.useful,
        )  # fmt: skip
        self.claimer = Claimer(
            seat, self.pool, self.settler, self.wakeup, self.outage, world,
            max_age=settings.max_age, max_crashes=settings.max_crashes, sizes=_sizes(settings),
        )  # fmt: skip
        if settings.metrics:
            self.settle_link.on_reply = self.wakeup.link.on_reply = self.observer.replied
        self.watch = self._loop_watch()
        self.heartbeat = self._heartbeat()
        self.recoverer = self._recoverer()
        self.promoter = Promoter(self.link, seat.keys, world.log)
        self.walker = Walker(self.link, seat.keys, world.log, max_age=settings.max_age, job_ttl=settings.job_ttl)
        self.memory = MemoryWatch(self.link, self.ledger, world.log, allow_eviction=settings.allow_eviction)
        self.supervisor = Supervisor(self.settler, self.outage, world.clock, on_unstuck=self._unstuck)

    def status_line(self, notifier: Notifier) -> StatusLine:
        """Return the duty that tells systemd how things are."""
        return StatusLine(
            QueueSize(self.link, self._seat.keys),
            self.presence,
            notifier,
            self.reporter,
            self._world.clock,
            work=lambda: Work(self.pool.busy, self._ended),
            trouble=self._trouble,
        )

    def _trouble(self) -> list[str]:
        """Return what is wrong, as `systemctl status` shows it."""
        told, away, metrics = [], self.outage.away_since, self.metrics_problem()
        if away is not None:
            seconds = round(self._world.clock.monotonic() - away)
            told.append(f"waiting for Redis at {self.redis} for {format_duration(seconds)}")
        else:
            told += self.outage.troubles
        if self.wakeup.polling is not None:
            told.append("polling, for Redis refuses CLIENT TRACKING")
        if metrics is not None:
            told.append(f"metrics not served: {metrics}")
        if self._edition.told:
            told.append("restart needed: jobqd on disk is another one, and jobs that need a process wait")
        if stuck := self.stuck():
            told.append(stuck)
        return told

    def burst(self, on_done: Callable[[], None]) -> Burst:
        """Return the duty that looks whether nothing is left to do."""
        return Burst(
            self.link,
            self._seat.keys,
            self._handlers.types,
            horizon=self.settings.retry_max_delay,
            busy=lambda: bool(self.pool.busy or len(self.settler)),
            on_done=on_done,
        )

    def pulses(self) -> list[Pulse]:
        """Return the pulse of every part whose progress the daemon vouches for."""
        return [self.claimer.pulse, self.wakeup.pulse, self.heartbeat.pulse, *self.supervisor.pulses.values()]

    def stuck(self) -> str | None:
        """Return which jobs keep all the workers although they were told to end; None if a worker is left."""
        held = self.pool.overstaying
        if not held or len(held) < self.pool.concurrency:
            return None
        names = ", ".join(f"{run.claimed.type} {run.claimed.id}" for run in held[:_NAMED])
        more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        return f"no worker is left: jobs that were told to end do not ({shorten(names, 300)}{more})"

    def rest(self, quiet: bool) -> None:
        """Claim nothing until told otherwise, or again; runs under way go on. Nothing to do while stopping."""
        if self.presence.status == "draining" or quiet == self.claimer.quiet:
            return
        self.claimer.rest(quiet)
        self.presence.status = "quiet" if quiet else "running"
        self._world.log.info("daemon.quiet" if quiet else "daemon.resumed", running=self.pool.busy)
        self.heartbeat.hasten()
        self.supervisor.hasten("status", 0.0)

    def adopt(self, settings: Settings) -> None:
        """Follow other settings from now on, as far as `jobqd.app.reload` calls them live."""
        before, self.settings = self.settings, settings
        self.policies.adopt(settings)
        self.claimer.adopt(max_age=settings.max_age, max_crashes=settings.max_crashes, sizes=_sizes(settings))
        self.ledger.dead_max, self.ledger.trimmed_ttl = settings.dead_max, settings.job_ttl
        self.walker.max_age, self.walker.job_ttl = settings.max_age, settings.job_ttl
        self.watch.limit = block_limit(settings.block_limit, self._watchdog)
        self.services.max_result, self.services.children = settings.max_result, self._children()
        if settings.concurrency != before.concurrency:
            threads, self.services.threads = self.services.threads, self._threads()
            threads.shutdown(wait=False)
        self.presence.concurrency = settings.concurrency
        self.pool.resize(settings.concurrency)
        self.claimer.nudge(more=True)

    async def close(self) -> None:
        """Close every connection."""
        self.heartbeat.close()
        await self.wakeup.link.close()
        await self.settle_link.close()
        await self.link.close()

    def _services(self) -> Services:
        return Services(
            handlers=self._handlers,
            progress=self.progress,
            checkpoints=CheckpointWriter(self.link, self._seat, self._world.clock),
            guardian=self.guardian,
            world=self._world,
            threads=self._threads(),
            max_result=self.settings.max_result,
            children=self._children(),
        )

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.settings.concurrency, "jobqd-job")

    def _children(self) -> Children:
        settings = self.settings
        return Children(
            self.guardian, self._edition, settings.handlers, settings.app_dir, self._world.log,
            max_result=settings.max_result, log_level=settings.log_level,
        )  # fmt: skip

    def _pool(self) -> Pool:
        return Pool(
            self.settings.concurrency,
            Executor(self.services),
            self.runs,
            self._handlers,
            self.policies,
            submit=self.settler.submit,
            on_start=self.observer.started,
            on_free=self._freed,
            world=self._world,
        )

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            # A connection that died in silence must be given up in time to renew on another.
            SyncLink(self._target, timeout=max(0.05, min(REPLY_TIMEOUT, self._seat.lease / 4))),
            self._seat,
            self.runs,
            self.outage,
            self._world,
            watch=self.watch,
            describe=self._described,
            on_lost=self._lost,
        )

    def _loop_watch(self) -> LoopWatch:
        surrender = Surrender(
            SyncLink(self._target),
            self.ledger,
            self._seat.worker,
            self.runs,
            self._world,
            guardian=self.guardian,
            owed=self.settler.owed,
        )
        limit = block_limit(self.settings.block_limit, self._watchdog)
        if limit < self.settings.block_limit:
            self._world.log.warning("config.warning", problem=_shortened(self.settings.block_limit, limit))
        return LoopWatch(self.runs, self._world, limit=limit, give_up=surrender)

    def _recoverer(self) -> Recoverer:
        return Recoverer(
            self.link,
            self._seat.keys,
            self.ledger,
            self.policies,
            self._world,
            trust=self.heartbeat.trust,
            on_dead=self.reporter.dead,
        )

    def _settled(self, pending: Pending, answer: str) -> None:
        self._ended += 1
        self.observer.settled(pending.run, pending.order.to, answer)
        self.reporter.settled(pending, answer)
        # Claiming stops while too many outcomes wait.
        self.claimer.nudge()
        if pending.order.to in ("retrying", "scheduled") and pending.order.delay < 1.0:
            self.supervisor.hasten("promote", pending.order.delay)

    def _freed(self, capped: bool) -> None:
        self.claimer.nudge(more=capped)

    def _wake(self) -> None:
        self.claimer.nudge()

    def _unstuck(self) -> None:
        self.claimer.nudge(more=True)

    def _cancelled(self, job_id: str) -> None:
        self.pool.end(job_id, None, Ending.CANCELLED)

    def _rested(self, worker: str, quiet: bool) -> None:
        if worker == self._seat.worker:
            self.rest(quiet)

    def _lost(self, job_id: str, fence: int, reason: str) -> None:
        if reason == "cancelled":
            self.pool.end(job_id, fence, Ending.CANCELLED)
        elif self.pool.end(job_id, fence, Ending.LOST):
            # Not each time Redis says so: it does again while the run goes on, and of runs settled in the same moment.
            self.observer.lease_lost()

    def _described(self) -> dict[str, Argument]:
        self.presence.running = self.pool.busy
        return self.presence.fields()


def _sizes(settings: Settings) -> running.Sizes:
    return running.Sizes(settings.max_payload, settings.max_result)


def _shortened(wanted: float, limit: float) -> str:
    return (
        f"block_limit is {format_duration(wanted)}, but a blocked event loop is given up after {format_duration(limit)}"
        ", which is two thirds of WatchdogSec= in the systemd unit; raise that too"
    )
