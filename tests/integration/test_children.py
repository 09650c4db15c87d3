"""Jobs in processes of their own: what handlers can do there, how they end, and what is learnt from a death."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobqd import SyncQueue
from jobqd.children import Children, Edition
from jobqd.duties.burst import Burst
from jobqd.guardian import Guardian
from jobqd.keys import Keys
from jobqd.runs import Completed
from jobqd.store import Link
from tests.redis_server import RedisServer
from tests.support.daemon import ROOT, Application, Daemon
from tests.support.log import RecordingLog
from tests.support.parts import claimed, run_of
from tests.support.processes import alive
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
import ctypes, logging, re
from contextlib import asynccontextmanager
from tests.support.hang import hang

ledger.note("imported by", os.getpid())

@handlers.lifespan
async def lifespan():
    ledger.note("entered")
    if ledger.lines("slow start") and os.getpid() == os.getsid(0):
        await ledger.gate("started")
    yield {"pid": os.getpid()}
    if ledger.lines("slow end"):
        ledger.note("leaving")
        await ledger.gate("left")
    ledger.note("left")

@handlers.around
async def around(job):
    ledger.note("around", job.type)
    yield

@handlers.job("plain")
async def plain(job: Job):
    return os.getpid()

@handlers.job("whole", process=True)
async def whole(job: Job, name: str, count: int = 1):
    job.log.info("working", film="in.mp4", attempt=99)
    logging.getLogger("library").warning("from a library")
    print("printed by hand")
    await job.progress(50, step="half", eta_seconds=3)
    before = job.checkpoint
    await job.save_checkpoint({"at": job.fence})
    if before is None:
        raise Retry("once more", delay=0)
    return {"name": name, "count": count, "before": before, "attempt": job.attempt, "of": job.max_attempts,
            "own": job.state["pid"] == os.getpid() and os.getpid() == os.getpgrp() == os.getsid(0), "pid": os.getpid(),
            "ignored": [n.name for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_DFL]}

@handlers.job("plainly", process=True)
def plainly(job: SyncJob):
    job.progress(10)
    job.save_checkpoint([1])
    return [threading.current_thread() is threading.main_thread(), os.getpid()]

@handlers.job("ends", process=True, max_attempts=2)
async def ends(how: str):
    if how == "fail":
        raise Fail("no such film")
    if how == "snooze":
        raise Snooze("1h")
    if how == "nan":
        return float("nan")
    if how == "slow end":
        ledger.note("slow end")
        raise Fail("bad input")
    if how == "long":
        raise Fail("x" * 6_000_000)
    if how == "large":
        return "x" * 2_000_000
    raise ValueError("broken film")

@handlers.job("dies", process=True)
async def dies(job: Job, how: str):
    ledger.note("dies", job.id, job.fence)
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "noise":
        os.write(3, b"nonsense")

@handlers.job("program", process=True)
async def program(job: Job):
    async for line in job.exec("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done", kill_after="200ms"):
        ledger.note("program", line)

@handlers.job("leaves", process=True)
async def leaves(job: Job):
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    ledger.note("left behind", process.pid)
    await ledger.gate("leave")
    os._exit(0)

@handlers.job("waits", process=True, drain_timeout=0)
async def waits(job: Job):
    ledger.note("waits", job.fence, os.getpid())
    try:
        await ledger.gate("waits")
    except asyncio.CancelledError:
        ledger.note("cancelled", job.fence)
        raise
    return "done"

@handlers.job("ignores", process=True, drain_timeout="1h")
async def ignores(job: Job):
    ledger.note("ignores", job.fence, os.getpid())
    try:
        await ledger.gate("never")
    except asyncio.CancelledError:
        await ledger.gate("never")

@handlers.job("stubborn", process=True, timeout="300ms", max_attempts=2, retry_delay=0, retry_max_delay=0)
def stubborn(job: SyncJob):
    ledger.note("stubborn", job.fence, os.getpid())
    ledger.gate_in_thread("never")

@handlers.job("hangs", process=True, timeout="300ms", retry_delay=0, retry_max_delay=0)
async def hangs(job: Job):
    ledger.note("hangs", job.fence)
    re.match("(a+)+$", "a" * 40 + "b")

@handlers.job("asked", process=True, drain_timeout="1h")
async def asked(job: Job):
    ledger.note("asked", job.fence)
    await job.stopping.wait()
    return "in time"

@handlers.job("stalls", process=True, stall_timeout="500ms", max_attempts=1)
async def stalls(job: Job):
    for percent in range(10):
        await job.progress(percent)
        await asyncio.sleep(0.1)
    await ledger.gate("never")

@handlers.job("poison", timeout="1s")
async def poison(job: Job, how: str):
    ledger.note("poison", job.fence, os.getpid())
    while job.fence <= 2 and len(ledger.lines("innocent")) < 3 * job.fence:
        await asyncio.sleep(0.005)
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    hang()

@handlers.job("innocent")
async def innocent(job: Job):
    ledger.note("innocent", job.id, os.getpid())
    await ledger.gate("calm")
"""
MODEST = {"retry_delay": "0s", "concurrency": 4}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.producer.redis.flushall()


def cancel(place: Workshop, job_id: str) -> None:
    """Cancel a job as a client does."""
    with SyncQueue.from_url(place.server.url) as queue:
        assert queue.cancel([job_id]) == {job_id: "cancelled"}


def pid_in(place: Workshop, start: str) -> int:
    (line,) = eventually(lambda: place.ledger.lines(start), start)
    return int(line.split()[-1])


# What a handler can do there


def test_a_handler_in_a_process_of_its_own_can_do_all_that_others_can(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    job = producer.run("w", "whole", name="Ann", count=3)
    result = json.loads(job["result"])
    pid = result.pop("pid")
    assert result == {
        "name": "Ann", "count": 3, "before": {"at": 1}, "attempt": 2, "of": 10, "own": True, "ignored": [],
    }  # fmt: skip
    assert pid != daemon.pid
    assert (job["attempts"], job["progress"], job["step"], job["eta_seconds"]) == ("2", "50", "half", "3")
    assert job["checkpoint"] == '{"at":2}'
    assert not alive(pid)
    of_the_job = {"job_id": "w", "job_type": "whole", "attempt": 1, "fence": 1}
    daemon.wait_for("working", film="in.mp4", **of_the_job)
    daemon.wait_for("from a library", logger="library", level="warning", **of_the_job)
    daemon.wait_for("job.printed", line="printed by hand", **of_the_job)
    # One process a run, each with a lifespan of its own; that of the daemon is still open.
    assert len(place.ledger.lines("imported by")) == 3
    assert (len(place.ledger.lines("entered")), len(place.ledger.lines("left"))) == (3, 2)
    assert place.ledger.lines("around") == ["around whole"] * 2


def test_a_plain_function_runs_in_a_thread_of_its_own_process(place: Workshop) -> None:
    daemon = place.start(**MODEST)
    job = place.producer.run("p", "plainly")
    main, pid = json.loads(job["result"])
    assert not main
    assert pid != daemon.pid
    assert (job["progress"], job["checkpoint"]) == ("10", "[1]")


def test_other_types_stay_in_the_daemon(place: Workshop) -> None:
    daemon = place.start(**MODEST)
    assert json.loads(place.producer.run("p", "plain")["result"]) == daemon.pid


def test_each_end_comes_through(place: Workshop) -> None:
    place.start(**MODEST)
    producer = place.producer
    failed = producer.run("1", "ends", how="fail")
    assert (failed["status"], failed["error"], failed["error_type"]) == ("failed", "no such film", "Fail")
    raised = producer.run("2", "ends", how="raise")
    assert (raised["status"], raised["error"], raised["attempts"]) == ("failed", "broken film", "2")
    assert 'raise ValueError("broken film")' in raised["traceback"]
    assert producer.run("3", "ends", how="nan")["error_type"] == "ResultError"
    assert "more than max_result" in producer.run("4", "ends", how="large")["error"]
    assert producer.run("7", "ends", how="long")["error"] == "x" * 3999 + "…"
    misfit = producer.run("5", "ends")
    assert (misfit["error_type"], misfit["attempts"]) == ("ArgumentError", "1")
    producer.put("6", "ends", how="snooze")
    assert "attempts" not in producer.wait("6", "scheduled")


def test_an_import_that_fails_there_is_a_failed_attempt_that_shows_the_line(
    server: RedisServer, tmp_path: Path
) -> None:
    handlers = """
if ledger.lines("no database"):
    raise ConnectionRefusedError("no database at db:5432")

@handlers.job("apart", process=True, max_attempts=1)
async def apart(): ...
"""
    with workshop(server, tmp_path, handlers) as place:
        place.start()
        place.ledger.note("no database")
        job = place.producer.run("job", "apart")
    assert (job["status"], job["error_type"], job["attempts"]) == ("failed", "ChildError", "1")
    assert "raised ConnectionRefusedError: no database at db:5432" in job["error"]
    assert "handlers.py" in job["error"]


# How a process dies


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", "its process exited with status 3"),
        ("abort", "its process was killed by SIGABRT"),
        ("segfault", "its process was killed by SIGSEGV"),
        ("kill", "its process was killed by SIGKILL (perhaps memory ran out)"),
        ("noise", "its process sent what is no message: it is 1852796531 bytes long, more than the 4194304 allowed"),
    ],
)
def test_the_death_of_its_process_is_a_crash_and_the_third_convicts(place: Workshop, how: str, error: str) -> None:
    place.start(**MODEST)
    job = place.producer.run("d", "dies", how=how)
    assert (job["status"], job["error"], job["error_type"]) == ("failed", error, "Crashed")
    assert (job["crashes"], job.get("attempts")) == ("3", None)
    assert place.ledger.lines("dies") == ["dies d 1", "dies d 2", "dies d 3"]
    assert [json.loads(line)["error_type"] for line in job["_history"].splitlines()] == ["Crashed"] * 3
    if how == "segfault":
        assert "in dies" in job["traceback"]
    assert place.producer.redis.hget("job_queue:counters", "crashed") == "3"


def test_max_crashes_says_how_many_deaths_convict(place: Workshop) -> None:
    place.start(max_crashes=2, **MODEST)
    assert place.producer.run("d", "dies", how="exit")["crashes"] == "2"


def test_a_dead_process_leaves_nothing_behind(place: Workshop) -> None:
    place.start(max_crashes=2, **MODEST)
    place.producer.put("l", "leaves")
    left = pid_in(place, "left behind")
    place.producer.put("p", "program")
    program = pid_in(place, "program")
    place.ledger.open("leave")
    place.producer.wait("l", "retrying", "queued", "processing", "failed")
    eventually(lambda: not alive(left))
    # The child of this one dies under its program, which ignores SIGTERM: the job goes on only after its end.
    imported = [int(line.split()[-1]) for line in place.ledger.lines("imported by")]
    (child,) = [pid for pid in imported if alive(pid) and pid != place.daemons[0].pid]
    os.kill(child, signal.SIGKILL)
    place.producer.wait_field("p", "crashes", "1")
    assert not alive(program)


def test_a_killed_daemon_takes_its_children_along(place: Workshop) -> None:
    daemon = place.start(**MODEST)
    place.producer.put("p", "program")
    place.producer.put("w", "waits")
    program, waiting = pid_in(place, "program"), pid_in(place, "waits 1")
    assert alive(program)
    assert alive(waiting)
    daemon.kill()
    eventually(lambda: not alive(program) and not alive(waiting))


# How we end it


def test_a_cancelled_job_is_cancelled_in_its_process(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    producer.put("w", "waits")
    pid = pid_in(place, "waits 1")
    cancel(place, "w")
    place.ledger.wait_for("cancelled 1")
    daemon.wait_for("job.cancelled", job_id="w")
    assert not alive(pid)
    assert producer.job("w")["status"] == "cancelled"


def test_a_stop_hands_the_job_back_uncharged(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    producer.put("w", "waits")
    producer.put("a", "asked")
    pid = pid_in(place, "waits 1")
    place.ledger.wait_for("asked 1")
    assert daemon.stop() == 0
    assert not alive(pid)
    job = producer.job("w")
    assert (job["status"], job["interruptions"]) == ("queued", "1")
    assert "attempts" not in job
    assert "crashes" not in job
    assert place.ledger.lines("cancelled") == ["cancelled 1"]
    assert producer.job("a")["result"] == '"in time"'


def test_a_stop_while_its_process_starts_is_heard_by_the_handler(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    place.ledger.note("slow start")
    producer.put("a", "asked")
    eventually(lambda: len(place.ledger.lines("entered")) == 2)
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("daemon.draining")
    place.ledger.open("started")
    assert daemon.wait() == 0
    assert producer.job("a")["result"] == '"in time"'


async def test_a_stop_that_comes_before_its_order_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'daemon'}:{ROOT}")
    application = Application(tmp_path, HANDLERS)
    guardian = Guardian()
    children = Children(
        guardian,
        Edition(),
        ["handlers:handlers"],
        application.directory,
        RecordingLog(),
        max_result=2**20,
        log_level="info",
    )
    run = run_of(claimed(type="asked"), handler=object())
    child = children.child(run, SimpleNamespace(log=RecordingLog()))  # type: ignore[arg-type]
    child.ask_to_finish()
    try:
        await child.start()
        assert await child.outcome() == Completed('"in time"')
    finally:
        await child.close()
        guardian.close()


@pytest.mark.parametrize("stop", ["drain", "hurry"])
def test_a_stop_after_the_handler_ended_does_not_change_how(place: Workshop, stop: str) -> None:
    daemon, producer = place.start(drain_timeout="0s", **MODEST), place.producer
    producer.put("f", "ends", how="slow end")
    place.ledger.wait_for("leaving")
    daemon.signal(signal.SIGTERM)
    if stop == "hurry":
        daemon.wait_for("daemon.draining")
        daemon.signal(signal.SIGTERM)
    eventually(lambda: producer.job("f").get("status") == "failed")
    place.ledger.open("left")
    assert daemon.wait() == 0
    job = producer.job("f")
    assert (job["error"], job["attempts"], job.get("interruptions")) == ("bad input", "1", None)


def test_a_second_signal_kills_a_process_before_its_job_is_handed_back(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    place.ledger.note("slow end")
    producer.put("i", "ignores")
    pid = pid_in(place, "ignores 1")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("daemon.draining")
    daemon.signal(signal.SIGTERM)
    eventually(lambda: producer.job("i")["status"] == "queued")
    assert not alive(pid)
    place.ledger.open("left")
    assert daemon.wait() == 0


def test_a_signal_for_the_whole_service_is_not_a_crash(place: Workshop) -> None:
    daemon, producer = place.start(**MODEST), place.producer
    producer.put("a", "asked")
    producer.put("w", "waits")
    pid = pid_in(place, "waits 1")
    place.ledger.wait_for("asked 1")
    daemon.signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    assert daemon.wait() == 0
    job = producer.job("w")
    assert (job["status"], job.get("crashes"), job["interruptions"]) == ("queued", None, "1")


def test_a_function_past_its_timeout_is_killed_and_tried_again_at_once(place: Workshop) -> None:
    place.start(**MODEST)
    job = place.producer.run("s", "stubborn")
    assert (job["status"], job["error"], job["error_type"]) == ("failed", "timed out after 300ms", "Timeout")
    assert (job["attempts"], job.get("crashes")) == ("2", None)
    assert not any(alive(int(line.split()[-1])) for line in place.ledger.lines("stubborn"))


def test_a_handler_that_hangs_its_process_is_convicted_and_the_record_says_where(place: Workshop) -> None:
    place.start(max_crashes=2, **MODEST)
    job = place.producer.wait(place.producer.put("h", "hangs"), timeout=20)
    assert job["error"] == "timed out after 300ms, and its process, which did not answer, was killed"
    assert (job["error_type"], job["crashes"]) == ("Crashed", "2")
    assert "in hangs" in job["traceback"]


def test_a_process_without_progress_is_ended(place: Workshop) -> None:
    place.start(**MODEST)
    job = place.producer.run("s", "stalls")
    assert (job["error_type"], job["progress"]) == ("Stalled", "9")


# Suspects


def outlive(place: Workshop, deaths: int, how: str) -> Daemon:
    """Start the daemon again each time it dies, as systemd does; its watchdog ends one that hangs."""
    for death in range(1, deaths + 1):
        daemon = place.start(lease="1s", **MODEST)
        if how == "hang":
            eventually(lambda n=death: len(place.ledger.lines("poison")) == n)
            presence = f"job_queue:daemon:{daemon.wait_for('daemon.starting')['worker']}"
            eventually(lambda key=presence: not place.producer.redis.exists(key))
            daemon.kill()
        else:
            assert daemon.wait() < 0
    return place.start(lease="1s", **MODEST)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("abort", "its process was killed by SIGABRT"),
        ("segfault", "its process was killed by SIGSEGV"),
        ("hang", "timed out after 1s, and its process, which did not answer, was killed"),
    ],
)
def test_a_poison_job_costs_the_daemon_two_deaths_and_convicts_nobody_else(
    place: Workshop, how: str, error: str
) -> None:
    producer = place.producer
    producer.put("poison", "poison", score=1, how=how)
    neighbours = [producer.put(f"n{number:02}", "innocent", score=2 + number) for number in range(100)]
    last = outlive(place, 2, how)
    place.ledger.open("calm")
    job = producer.wait("poison", timeout=30)
    assert (job["status"], job["error"], job["error_type"]) == ("failed", error, "Crashed")
    assert (job["crashes"], job.get("attempts")) == ("3", None)
    assert "in poison" in job["traceback"]
    ended = {name: producer.wait(name, timeout=30) for name in neighbours}
    assert {fields["status"] for fields in ended.values()} == {"completed"}
    assert {fields["attempts"] for fields in ended.values()} == {"1"}
    # Those who ran beside it twice were suspects too, and each was cleared in a process of its own.
    suspects = [name for name, fields in ended.items() if fields.get("crashes") == "2"]
    assert suspects == ["n00", "n01", "n02"]
    for name in neighbours:
        last_pid = int(place.ledger.lines(f"innocent {name} ")[-1].split()[-1])
        assert (last_pid != last.pid) is (name in suspects)
    assert last.stop() == 0


def test_suspects_run_a_few_at_once_and_the_others_wait_held(place: Workshop) -> None:
    producer = place.producer
    for number in range(4):
        producer.put(f"s{number}", "innocent", score=number, crashes=2)
    producer.put("free", "innocent", score=9)
    daemon = place.start(**{**MODEST, "concurrency": 10})
    place.ledger.wait_for(f"innocent free {daemon.pid}")
    eventually(lambda: len(place.ledger.lines("innocent s")) == 2)
    assert producer.redis.zrange("job_queue:held:suspect", 0, -1) == ["s2", "s3"]
    assert producer.job("s2").items() >= {"status": "queued", "held": "suspect"}.items()
    # A further claim knows that the room is taken.
    producer.put("after", "innocent", score=9)
    place.ledger.wait_for(f"innocent after {daemon.pid}")
    assert producer.redis.zcard("job_queue:held:suspect") == 2
    place.ledger.open("calm")
    jobs = [producer.wait(f"s{number}") for number in range(4)]
    for job in jobs:
        assert (job["status"], job["crashes"], job.get("held")) == ("completed", "2", None)
    # The end of one lets the next in at once.
    assert float(jobs[2]["started_at"]) - min(float(job["finished_at"]) for job in jobs[:2]) < 1
    assert producer.redis.exists("job_queue:held", "job_queue:held:suspect") == 0


async def test_a_burst_is_not_done_while_a_suspect_is_held(redis_server: RedisServer, keys: Keys, link: Link) -> None:
    done: list[bool] = []
    burst = Burst(link, keys, ("innocent",), horizon=60.0, busy=lambda: False, on_done=lambda: done.append(True))
    await link.command("ZADD", keys.held_for("suspect"), 1, "s")
    await burst.run_once()
    assert not done
    await link.command("DEL", keys.held_for("suspect"))
    await burst.run_once()
    assert done
