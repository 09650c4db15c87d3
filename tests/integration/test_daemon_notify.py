"""What the daemon tells systemd: that it is ready, how it is, that it lives, how long its stop takes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.app.preparation import READY_WITHOUT_REDIS, Preparation
from jobqd.handlers import Handlers
from jobqd.keys import Keys, Seat
from jobqd.lockfile import InstanceLock, ProgramsLock
from jobqd.store import Target
from tests.redis_server import RedisServer
from tests.support.assembled import assembled
from tests.support.clock import ManualClock
from tests.support.parts import world
from tests.support.servers import newest_server
from tests.support.systemd import Notified, notified
from tests.support.waiting import eventually, soon, within
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("started", job.id)
    await ledger.gate("film")

@handlers.job("stubborn", timeout="100ms")
def stubborn(job: SyncJob):
    ledger.note("started", job.id)
    a_call_that_hangs()

def a_call_that_hangs():
    ledger.gate_in_thread("film")

@handlers.job("blocks")
async def blocks(job: Job):
    ledger.note("started", job.id)
    ledger.gate_in_thread("blocks")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notified]:
    with notified(watchdog=2.0) as systemd:
        for name, value in systemd.environ.items():
            monkeypatch.setenv(name, value)
        yield systemd


@pytest.fixture
def place(server: RedisServer, tmp_path: Path, systemd: Notified) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.ledger.open("film")
        place.ledger.open("blocks")
        place.producer.redis.flushall()


def pings_within(systemd: Notified, seconds: float) -> int:
    """Return how many pings came in so many seconds from now."""
    before = len(systemd.times("WATCHDOG=1"))
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end, timeout=seconds + 5)
    return len(systemd.times("WATCHDOG=1")) - before


def test_it_is_ready_once_and_says_how_it_is(place: Workshop, systemd: Notified) -> None:
    daemon = place.start(concurrency=4)
    systemd.wait_for("STATUS", "4 workers, 0 running, 0 ready, 0 dead, 0/s")
    assert len(systemd.times("READY=1")) == 1
    for number in range(6):
        place.producer.put(f"f{number}", "film")
    place.ledger.wait_for("started f3")
    systemd.wait_for("STATUS", "4 workers, 4 running, 2 ready, 0 dead, 0/s")
    daemon.signal(signal.SIGUSR1)
    systemd.wait_for("STATUS", "; quiet", timeout=3)
    place.ledger.open("film")
    assert daemon.stop() == 0


def test_a_stop_asks_for_time_while_it_drains_and_counts_down(place: Workshop, systemd: Notified) -> None:
    daemon = place.start(drain_timeout="30s")
    place.producer.put("film", "film")
    place.ledger.wait_for("started film")
    daemon.signal(signal.SIGTERM)
    systemd.wait_for("STATUS", "stopping: 1 running, 35s left")
    assert len(systemd.times("STOPPING=1")) == 1
    systemd.wait_for("STATUS", "stopping: 1 running, 31s left")
    assert set(systemd.values("EXTEND_TIMEOUT_USEC")) == {"10000000"}
    assert len(systemd.values("EXTEND_TIMEOUT_USEC")) >= 3
    place.ledger.open("film")
    assert daemon.wait() == 0


def test_a_stop_that_stands_still_asks_for_nothing_more(place: Workshop, systemd: Notified) -> None:
    daemon = place.start(drain_timeout="30s", block_limit="1m")
    place.producer.put("film", "film")
    place.ledger.wait_for("started film")
    daemon.signal(signal.SIGTERM)
    eventually(lambda: systemd.values("EXTEND_TIMEOUT_USEC"))
    daemon.signal(signal.SIGSTOP)
    told = len(systemd.values("EXTEND_TIMEOUT_USEC"))
    assert pings_within(systemd, 3.0) == 0
    assert len(systemd.values("EXTEND_TIMEOUT_USEC")) <= told + 1
    daemon.signal(signal.SIGCONT)


def test_the_watchdog_hears_from_an_idle_daemon_and_from_one_whose_redis_hangs(
    place: Workshop, systemd: Notified
) -> None:
    with newest_server() as server:
        # A short lease: the next renewal, which tells that Redis hangs, comes soon.
        daemon = place.start(redis_url=server.url, lease="3s")
        assert pings_within(systemd, 2.2) >= 3
        server.freeze()
        before = len(systemd.times("WATCHDOG=1"))
        daemon.wait_for("redis.away", timeout=30)
        assert len(systemd.times("WATCHDOG=1")) >= before + 4, "it takes longer than a reply is waited for"
        systemd.wait_for("STATUS", f"waiting for Redis at {server.socket}", timeout=30)
        server.thaw()


def test_a_blocked_loop_is_not_vouched_for(place: Workshop, systemd: Notified) -> None:
    daemon = place.start()
    place.producer.put("b", "blocks")
    place.ledger.wait_for("started b")
    assert pings_within(systemd, 1.0) == 0
    daemon.wait_for("config.warning")
    # Two thirds of the watchdog's time: block_limit comes first, and hands the other jobs back.
    daemon.wait_for("loop.gave_up", job_id="b")
    assert daemon.wait() == 70


def test_without_a_worker_left_it_is_not_vouched_for_and_the_job_is_named(place: Workshop, systemd: Notified) -> None:
    daemon = place.start(concurrency=1)
    place.producer.put("s", "stubborn")
    place.ledger.wait_for("started s")
    told = daemon.wait_for("job.keeps_thread", job_id="s", job_type="stubborn", ending="timeout", timeout=20)
    assert told["level"] == "warning"
    assert "a_call_that_hangs" in told["stack"]
    stuck = daemon.wait_for("daemon.stuck", part="workers")
    assert stuck["level"] == "critical"
    assert "stubborn s" in stuck["reason"]
    assert pings_within(systemd, 1.2) == 0
    place.ledger.open("film")
    daemon.wait_for("daemon.vouches")
    assert pings_within(systemd, 1.2) >= 1
    assert place.producer.wait("s")["status"] == "completed"
    assert len(daemon.of("job.keeps_thread")) == len(daemon.of("daemon.stuck")) == 1


def test_what_hangs_leaves_every_stack_on_stderr(place: Workshop) -> None:
    daemon = place.start()
    place.producer.put("b", "blocks")
    place.ledger.wait_for("started b")
    daemon.signal(signal.SIGABRT)
    assert daemon.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log
    assert "gate_in_thread" in daemon.log
    assert "heartbeat.py" in daemon.log


def test_after_a_kill_its_jobs_run_again_within_two_seconds(place: Workshop) -> None:
    jobs = iter("abc")

    def seconds() -> float:
        daemon, job_id = place.daemons[-1] if place.daemons else place.start(), next(jobs)
        place.producer.put(job_id, "film")
        place.ledger.wait_for(f"started {job_id}")
        daemon.signal(signal.SIGABRT)
        daemon.wait()
        began = time.monotonic()
        place.daemon().start(ready=False)
        place.ledger.wait_for(f"started {job_id}", 2)
        return time.monotonic() - began

    within(2, seconds)


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def ready(self, status: str) -> None:
        self.lines.append(status)


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "lost later"])
async def test_without_redis_it_is_ready_after_ten_seconds(tmp_path: Path, absent: bool) -> None:
    """Whatever starts the unit must not hang; a Redis that goes away while jobs are taken back is the same case."""
    clock, told = ManualClock(), Told()
    async with assembled(Target("unix:///nowhere.sock"), Keys(), Handlers(), clock=clock) as parts:
        with InstanceLock(tmp_path, "default", "place") as lock:
            programs = ProgramsLock(tmp_path, "default", "place")
            made = Preparation(parts, Seat(Keys(), "w", 15.0), lock, programs, told, world(clock))  # type: ignore[arg-type]
            made._reached = not absent
            running = asyncio.create_task(made.run())
            await soon(lambda: READY_WITHOUT_REDIS in clock.slept)
            for _ in range(30):
                clock.advance(0.3)
                await asyncio.wait([running], timeout=0.001)
            assert told.lines == []
            clock.advance(1.5)
            await soon(lambda: told.lines == ["waiting for Redis at /nowhere.sock"])
            running.cancel()
            await asyncio.wait([running])


async def test_a_predecessors_jobs_are_taken_back_before_it_is_ready_however_long_that_takes(tmp_path: Path) -> None:
    clock, told = ManualClock(), Told()
    async with assembled(Target("unix:///nowhere.sock"), Keys(), Handlers(), clock=clock) as parts:
        with InstanceLock(tmp_path, "default", "place") as lock:
            programs = ProgramsLock(tmp_path, "default", "place")
            made = Preparation(parts, Seat(Keys(), "w", 15.0), lock, programs, told, world(clock))  # type: ignore[arg-type]
            made._reached = True
            waiting = asyncio.create_task(made._ready_without_redis())
            for second in range(30):
                await soon(lambda second=second: len(clock.slept) > second)  # type: ignore[misc]
                clock.advance(READY_WITHOUT_REDIS)
            assert told.lines == [], "Redis serves: there is no reason to be ready too soon"
            waiting.cancel()
