"""Stopping: what runs may finish, what may not is handed back uncharged, and the exit is clean."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobqd.app.daemon import Daemon
from jobqd.handlers import Handlers
from jobqd.keys import Keys
from jobqd.store import Target
from tests.redis_server import RedisServer
from tests.support.assembled import assembled
from tests.support.daemon import Daemon as DaemonProcess
from tests.support.log import RecordingLog
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("half_a_second")
async def half_a_second(job: Job):
    ledger.note("started", job.id)
    await asyncio.sleep(0.5)
    return "finished"

@handlers.job("film")
async def film(job: Job):
    ledger.note("started", job.id)
    try:
        await ledger.gate("film")
    except BaseException as error:
        ledger.note("ended", job.id, type(error).__name__)
        raise
    ledger.note("finished", job.id)

@handlers.job("polite")
async def polite(job: Job):
    ledger.note("started", job.id)
    await job.stopping.wait()
    await job.save_checkpoint({"at": 42})
    raise Snooze("1h")

@handlers.job("polite_thread")
def polite_thread(job: SyncJob):
    ledger.note("started", job.id)
    assert job.stopping.wait(10)
    return "stopped early"

@handlers.job("stuck_thread", drain_timeout="100ms")
def stuck_thread(job: SyncJob):
    ledger.note("started", job.id)
    ledger.gate_in_thread("never")

@handlers.job("stubborn")
async def stubborn(job: Job):
    ledger.note("started", job.id)
    while True:
        try:
            await ledger.gate("never")
        except asyncio.CancelledError:
            ledger.note("asked", job.id)

@handlers.job("leaves_a_thread")
async def leaves_a_thread(job: Job):
    ledger.note("started", job.id)
    await asyncio.to_thread(ledger.gate_in_thread, "never")

async def never_ends():
    while True:
        try:
            await ledger.gate("never")
        except asyncio.CancelledError:
            pass

@handlers.job("leaves_a_task")
async def leaves_a_task(job: Job):
    job.state.append(asyncio.create_task(never_ends(), name="never ends"))

@handlers.job("cancels")
async def cancels(job: Job, only: str = ""):
    if ledger.lines("cancels"):
        return
    ledger.note("cancels")
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task() and only in ("", task.get_name()):
            task.cancel()

@handlers.lifespan
async def lifespan():
    yield []
    ledger.note("lifespan left")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.producer.redis.flushall()


def assert_clean_end(daemon: DaemonProcess, status: int) -> None:
    assert status == 0, daemon.log
    assert "Traceback" not in daemon.log
    assert daemon.of("daemon.stopped")


def test_a_stop_waits_for_what_runs_and_takes_nothing_new(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("short", "half_a_second")
    place.ledger.wait_for("started short")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("daemon.draining", running=1)
    producer.put("late", "half_a_second")
    assert_clean_end(daemon, daemon.wait())
    assert producer.job("short")["result"] == '"finished"'
    assert producer.status("late") == "queued"
    assert producer.redis.zscore("job_queue", "late") == 10
    assert place.ledger.lines("lifespan") == ["lifespan left"]
    assert producer.redis.keys("job_queue:daemon*") == []
    assert producer.redis.keys("job_queue:claim*") == []


def test_what_outlasts_the_wait_is_handed_back_and_no_attempt_is_spent(place: Workshop) -> None:
    daemon, producer = place.start(drain_timeout="100ms"), place.producer
    producer.put("film", "film", score=10.5)
    place.ledger.wait_for("started film")
    assert_clean_end(daemon, daemon.stop())
    assert place.ledger.lines("ended") == ["ended film CancelledError"]
    job = producer.job("film")
    assert (job["status"], job["interruptions"], job.get("attempts")) == ("queued", "1", None)
    # It has waited its turn already: ahead of its equals.
    assert producer.redis.zscore("job_queue", "film") == 10
    assert producer.redis.zcard("job_queue:active") == 0
    daemon.wait_for("job.released", job_id="film", reason="the daemon stops")


def test_a_type_may_have_a_wait_of_its_own(place: Workshop) -> None:
    daemon, producer = place.start(drain_timeout="0s", jobs__half_a_second__drain_timeout="30s"), place.producer
    producer.put("film", "film")
    producer.put("short", "half_a_second")
    place.ledger.wait_for("started film")
    place.ledger.wait_for("started short")
    assert_clean_end(daemon, daemon.stop())
    assert producer.status("short") == "completed"
    assert producer.status("film") == "queued"


@pytest.mark.parametrize(
    ("job_type", "named"), [("leaves_a_thread", "thread uvloop_0"), ("leaves_a_task", "task never ends")]
)
def test_what_the_application_leaves_running_does_not_hold_the_exit_up(
    place: Workshop, job_type: str, named: str
) -> None:
    daemon, producer = place.start(drain_timeout="0s"), place.producer
    producer.put("job", job_type)
    if job_type == "leaves_a_thread":
        place.ledger.wait_for("started job")
    else:
        producer.wait("job", "completed")
    assert daemon.stop(timeout=20) == 0
    assert named in daemon.of("daemon.left_behind")[0]["names"]
    assert daemon.of("daemon.stopped")


@pytest.mark.parametrize("only", ["claim", "settle", "walk", "reload", ""])
def test_an_application_that_cancels_our_tasks_ends_the_daemon(place: Workshop, only: str) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("job", "cancels", only=only)
    assert daemon.wait() == 70
    assert daemon.of("daemon.crashed")
    # What it had is taken back.
    place.start()
    producer.wait("job", "completed")


def test_a_second_signal_ends_the_wait(place: Workshop) -> None:
    daemon, producer = place.start(drain_timeout="1h"), place.producer
    producer.put("film", "film")
    place.ledger.wait_for("started film")
    daemon.signal(signal.SIGINT)
    daemon.wait_for("daemon.draining")
    daemon.signal(signal.SIGINT)
    assert_clean_end(daemon, daemon.wait())
    assert producer.job("film")["interruptions"] == "1"


def test_a_job_that_was_interrupted_often_enough_is_waited_for(place: Workshop) -> None:
    daemon, producer = place.start(drain_timeout="0s", max_interruptions=2), place.producer
    producer.put("often", "film", interruptions=2)
    producer.put("once", "film", interruptions=1)
    place.ledger.wait_for("started often")
    place.ledger.wait_for("started once")
    daemon.signal(signal.SIGTERM)
    producer.wait_field("once", "interruptions", "2")
    assert producer.status("often") == "processing"
    place.ledger.open("film")
    assert_clean_end(daemon, daemon.wait())
    job = producer.job("often")
    assert (job["status"], job["interruptions"]) == ("completed", "2")


def test_handlers_are_told_to_finish(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("polite", "polite")
    producer.put("thread", "polite_thread")
    place.ledger.wait_for("started polite")
    place.ledger.wait_for("started thread")
    assert_clean_end(daemon, daemon.stop())
    assert producer.job("polite")["checkpoint"] == '{"at":42}'
    assert producer.status("polite") == "scheduled"
    assert producer.job("thread")["result"] == '"stopped early"'


def test_a_thread_that_does_not_return_does_not_stop_the_exit(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("stuck", "stuck_thread")
    place.ledger.wait_for("started stuck")
    began = time.monotonic()
    assert daemon.stop(timeout=20) == 0, daemon.log
    assert time.monotonic() - began < 15
    assert "Traceback" not in daemon.log
    job = producer.job("stuck")
    assert (job["status"], job["interruptions"], job.get("attempts")) == ("queued", "1", None)
    assert producer.redis.zcard("job_queue:active") == 0


def test_a_signal_during_the_start_is_a_stop(place: Workshop) -> None:
    daemon = place.daemon().start(ready=False)
    daemon.wait_for("daemon.starting")
    assert_clean_end(daemon, daemon.stop())


def test_a_signal_while_redis_is_absent_is_a_stop(place: Workshop, tmp_path: Path) -> None:
    daemon = place.daemon(redis_url=f"unix://{tmp_path}/absent.sock").start(ready=False)
    daemon.wait_for("redis.away", part="start", fault="down")
    assert_clean_end(daemon, daemon.stop())
    eventually(lambda: "absent.sock" in daemon.log)


@pytest.mark.parametrize("job_type", ["film", None], ids=["running", "idle"])
def test_a_redis_that_hangs_does_not_hold_up_a_stop(tmp_path: Path, job_type: str | None) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        daemon = place.start(drain_timeout="1s")
        if job_type is not None:
            place.producer.put("job", job_type)
            place.ledger.wait_for("started job")
        server.freeze()
        began = time.monotonic()
        status = daemon.stop(timeout=30)
        lasted = time.monotonic() - began
        server.thaw()
        assert status == 0, daemon.log
        assert lasted < 6, f"{lasted:.1f} s\n{daemon.log}"
        assert "Traceback" not in daemon.log
        if job_type is not None:
            # Nobody could be told; the next one takes it back.
            place.ledger.open("film")
            place.start()
            assert place.producer.wait("job")["status"] == "completed"


def test_a_redis_that_hangs_from_long_before_does_not_either(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        # A short lease: the next renewal, which tells that Redis hangs, comes soon.
        daemon = place.start(drain_timeout="1s", lease="3s")
        place.producer.put("job", "film")
        place.ledger.wait_for("started job")
        server.freeze()
        daemon.wait_for("redis.away", timeout=30)
        place.ledger.open("film")
        began = time.monotonic()
        assert daemon.stop(timeout=30) == 0, daemon.log
        assert time.monotonic() - began < 6
        server.thaw()
        daemon.wait_for("job.not_recorded", job_id="job")
        place.start()
        assert place.producer.wait("job")["status"] == "completed"


def test_what_ignores_its_end_does_not_hold_up_a_stop_and_a_second_signal_shortens_it(place: Workshop) -> None:
    daemon = place.start(drain_timeout="1h")
    place.producer.put("job", "stubborn")
    place.ledger.wait_for("started job")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("daemon.draining")
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0, daemon.log
    assert time.monotonic() - began < 3
    assert "Traceback" not in daemon.log
    assert place.producer.job("job")["interruptions"] == "1"


def test_the_lock_is_held_until_programs_have_ended(server: RedisServer, tmp_path: Path) -> None:
    """Else a successor could begin a job whose old program still writes."""
    handlers = """
import asyncio
from jobqd.guardian import Guardian
close = Guardian.close

def slow(self):
    ledger.note("closing")
    ledger.gate_in_thread("close")
    close(self)

Guardian.close = slow

@handlers.job("quick")
async def quick(): pass
"""
    with workshop(server, tmp_path, handlers) as place:
        first = place.start()
        first.signal(signal.SIGTERM)
        place.ledger.wait_for("closing")
        second = place.daemon().start(ready=False)
        assert second.wait() == 78
        place.ledger.open("close")
        assert first.wait() == 0
        place.start()


def test_a_reload_changes_how_long_a_stop_waits(place: Workshop) -> None:
    settings = place.application.directory / "jobqd.toml"
    daemon, producer = place.start(), place.producer
    producer.put("film", "film")
    place.ledger.wait_for("started film")
    settings.write_text("drain_timeout = '100ms'\nmax_interruptions = 7\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.reloaded")
    assert daemon.stop(timeout=5) == 0
    assert producer.job("film")["interruptions"] == "1"


@pytest.mark.parametrize("unanswered", [True, False])
async def test_a_claim_whose_reply_was_lost_leaves_its_record(server: RedisServer, unanswered: bool) -> None:
    """It tells which jobs this daemon may have leased without knowing."""
    async with assembled(Target(server.url), Keys(), Handlers()) as parts:
        await parts.claimer.run_once()
        parts.claimer.unanswered = unanswered
        daemon = SimpleNamespace(_seat=parts._seat, _log=RecordingLog())
        await Daemon._sign_off(daemon, parts)  # type: ignore[arg-type]
        record = await parts.link.command("EXISTS", parts._seat.keys.claim("worker-1"))
        assert bool(record) is unanswered
        await parts.link.command("FLUSHALL")
