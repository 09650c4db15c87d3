"""Every part of the daemon, made once and told of the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from jobqd.children import Children
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
from jobqd.duties.settle import Pending, Settler
from jobqd.duties.status import Presence, StatusLine
from jobqd.duties.surrender import Surrender
from jobqd.duties.walk import Walker
from jobqd.executor import Executor
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.heartbeat import Heartbeat
from jobqd.keys import Seat
from jobqd.logs import RunLog
from jobqd.loopwatch import LoopWatch
from jobqd.policy import Policies
from jobqd.pool import Pool
from jobqd.runs import Ending, Runs
from jobqd.settings import Settings
from jobqd.store import Ledger, Link, SyncLink, Target
from jobqd.store.call import Argument
from jobqd.store.connect import REPLY_TIMEOUT
from jobqd.supervisor import Supervisor
from jobqd.systemd import Notifier
from jobqd.wakeup import Wakeup


class Parts:
    """The parts in the order of their needs; to be made on the running loop. Nothing is started here."""

    def __init__(
        self, settings: Settings, handlers: Handlers, target: Target, seat: Seat, world: World, guardian: Guardian
    ) -> None:
        # A broken producer causes lines without end: those about single jobs are kept to a rate.
        run_log = RunLog(world.log, world.clock)
        world = replace(world, log=run_log)
        self._settings, self._handlers, self._world = settings, handlers, world
        self._target, self._seat = target, seat
        self.guardian = guardian
        self.presence = Presence(settings.instance, settings.concurrency, handlers.types, world.clock.time())
        self.outage = Outage(world)
        self.runs = Runs()
        self.policies = Policies(settings, handlers)
        # Settling has a connection of its own: no other duty may make a result wait.
        self.settle_link, self.link = Link(target), Link(target)
        self.ledger = Ledger(self.settle_link, seat.keys, dead_max=settings.dead_max, trimmed_ttl=settings.job_ttl)
        self.reporter = Reporter(run_log, run_log, handlers)
        self.settler = Settler(self.ledger, seat.worker, self.runs, self.outage, world, on_settled=self._settled)
        self.progress = ProgressWriter(self.link, seat, world.clock)
        self.services = self._services()
        self.pool = self._pool()
        self.wakeup = Wakeup(target, seat.keys, world, on_wake=self._wake, on_cancel=self._cancelled)
        self.claimer = Claimer(
            seat, self.pool, self.settler, self.wakeup, self.outage, world,
            max_age=settings.max_age, max_crashes=settings.max_crashes, max_payload=settings.max_payload,
        )  # fmt: skip
        self.heartbeat = self._heartbeat()
        self.recoverer = self._recoverer()
        self.promoter = Promoter(self.link, seat.keys, world.log)
        self.walker = Walker(self.link, seat.keys, world.log, max_age=settings.max_age, job_ttl=settings.job_ttl)
        self.memory = MemoryWatch(self.link, self.ledger, world.log)
        self.supervisor = Supervisor(self.settler, self.outage, world.clock, on_unstuck=self._unstuck)

    def status_line(self, notifier: Notifier) -> StatusLine:
        """Return the duty that tells systemd how things are."""
        return StatusLine(
            self.presence,
            self.outage,
            notifier,
            self.reporter,
            self._world.clock,
            polling=lambda: self.wakeup.polling,
        )

    def burst(self, on_done: Callable[[], None]) -> Burst:
        """Return the duty that looks whether nothing is left to do."""
        return Burst(
            self.link,
            self._seat.keys,
            self._handlers.types,
            horizon=self._settings.retry_max_delay,
            busy=lambda: bool(self.pool.busy or len(self.settler)),
            on_done=on_done,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.wakeup.link.close()
        await self.settle_link.close()
        await self.link.close()

    def _services(self) -> Services:
        settings = self._settings
        return Services(
            handlers=self._handlers,
            progress=self.progress,
            checkpoints=CheckpointWriter(self.link, self._seat, self._world.clock),
            guardian=self.guardian,
            world=self._world,
            threads=ThreadPoolExecutor(settings.concurrency, "jobqd-job"),
            max_result=settings.max_result,
            children=Children(
                self.guardian,
                settings.handlers,
                settings.app_dir,
                max_result=settings.max_result,
                log_level=settings.log_level,
            ),
        )

    def _pool(self) -> Pool:
        return Pool(
            self._settings.concurrency,
            Executor(self.services),
            self.runs,
            self._handlers,
            self.policies,
            submit=self.settler.submit,
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
            watch=self._loop_watch(),
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
            owed=self.settler.owed,
        )
        return LoopWatch(self.runs, self._world, limit=self._settings.block_limit, give_up=surrender)

    def _recoverer(self) -> Recoverer:
        return Recoverer(
            self.link,
            self._seat.keys,
            self.ledger,
            self.policies,
            self._world,
            on_dead=self.reporter.dead,
            may_sweep=lambda: self.heartbeat.trust.earned(self._world.clock.monotonic()),
        )

    def _settled(self, pending: Pending, answer: str) -> None:
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

    def _lost(self, job_id: str, fence: int, reason: str) -> None:
        self.pool.end(job_id, fence, Ending.CANCELLED if reason == "cancelled" else Ending.LOST)

    def _described(self) -> dict[str, Argument]:
        self.presence.running = self.pool.busy
        return self.presence.fields()
