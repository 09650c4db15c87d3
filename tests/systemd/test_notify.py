"""Type=notify, the status line and the watchdog, under the shipped unit."""

from __future__ import annotations

import re
import time
from typing import Any

from tests.systemd.lab import Application, Machine, assert_takes_less

HANDLERS = """
import asyncio, re, threading, time
from pathlib import Path
from jobqd import Handlers, Job, SyncJob
handlers = Handlers()

def note(*words):
    with Path("/var/lib/jobqd/ledger").open("a") as file:
        print(f"{time.time():.3f}", *words, file=file)

@handlers.job
async def nap(job: Job, seconds: float = 0.0):
    note("started", job.id, job.fence)
    await asyncio.sleep(seconds)
    note("ended", job.id, job.fence)

@handlers.job
async def once(job: Job):
    note("started", job.id, job.fence)
    if job.fence == 1:
        await asyncio.sleep(600)

@handlers.job
async def holds(job: Job):
    note("started", job.id, job.fence)
    if job.fence == 1:
        # It keeps the interpreter's lock: no other thread of the process runs again.
        re.match("(a+)+$", "a" * 60 + "b")

@handlers.job
async def blocks(job: Job):
    note("started", job.id, job.fence)
    if job.fence == 1:
        time.sleep(600)

@handlers.job(timeout="500ms")
def stalls(job: SyncJob):
    note("started", job.id, job.fence)
    if job.fence == 1:
        threading.Event().wait(600)
"""
RECOVERY = 2.0
TURN_LIMIT = 16
# The voucher bears with a turn for two minutes, so no outage that a test can wait for would matter to it. Here it bears
# with little more than a connection and a reply, of which each is given up after 5 s.
IMPATIENT = f"""
import jobqd.app.vouch
jobqd.app.vouch.TURN_LIMIT = {TURN_LIMIT}
"""


def entries(machine: Machine, text: str, after: str = "") -> list[dict[str, Any]]:
    """Return the journal's entries of the unit that hold this text."""
    return [entry for entry in machine.journal("jobqd", after=after) if text in str(entry["MESSAGE"])]


def when(entry: dict[str, Any]) -> float:
    return int(entry["__REALTIME_TIMESTAMP"]) / 1e6


def starts(machine: Machine, job: str) -> list[float]:
    """Return when each run of a job began, in Unix seconds."""
    if not machine.exists("/var/lib/jobqd/ledger"):
        return []
    lines = [line.split() for line in machine.read("/var/lib/jobqd/ledger").splitlines()]
    return [float(words[0]) for words in lines if words[1:3] == ["started", job]]


def test_it_is_ready_when_it_works_and_its_status_is_live(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings(concurrency=2)
    began = time.monotonic()
    app.start()
    assert time.monotonic() - began < 8
    assert machine.show("jobqd", "ActiveState") == "active"
    jobs = [app.enqueue("nap", seconds=300) for _ in range(5)]
    machine.wait_until(
        lambda: machine.show("jobqd", "StatusText") == "2 workers, 2 running, 3 ready, 0 dead, 0/s",
        "the status line",
    )
    assert len(jobs) == 5


def test_without_redis_it_is_ready_after_ten_seconds_and_waits(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    machine.systemctl("stop", "redis-server")
    began = time.monotonic()
    app.start()
    assert 9 < time.monotonic() - began < 20
    assert machine.show("jobqd", "StatusText").startswith("waiting for Redis at localhost:6379")
    machine.systemctl("start", "redis-server")
    app.wait_for(app.enqueue("nap"))
    machine.wait_until(lambda: "0 ready" in machine.show("jobqd", "StatusText"), "the live line")


def outage(machine: Machine) -> float:
    """Return for how many seconds Redis has been away, as the status line says."""
    found = re.search(r"waiting for Redis at \S+ for (?:(\d+)m)?(?:(\d+)s)?", machine.show("jobqd", "StatusText"))
    return int(found[1] or 0) * 60 + int(found[2] or 0) if found else 0


def test_a_redis_that_hangs_is_no_reason_to_be_killed(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS + IMPATIENT)
    app.settings()
    machine.drop_in("jobqd.service", "watchdog", "[Service]\nWatchdogSec=2\n")
    app.start()
    pid = machine.main_pid("jobqd")
    job = app.enqueue("nap", seconds=1)
    machine.wait_until(lambda: starts(machine, job), "a job runs")
    # In the middle of work: its outcome and its lease are to be told to Redis all the time.
    machine.systemctl("kill", "--signal=STOP", "redis-server")
    try:
        machine.wait_until(lambda: outage(machine) > 1.75 * TURN_LIMIT, "an outage of several turns", 90)
    finally:
        machine.systemctl("kill", "--signal=CONT", "redis-server")
    app.wait_for(app.enqueue("nap"))
    assert machine.main_pid("jobqd") == pid
    assert machine.show("jobqd", "NRestarts") == "0"
    assert [entry["MESSAGE"] for entry in machine.journal("jobqd", _PID=str(pid), EVENT="daemon.stuck")] == []


def hang(app: Application, machine: Machine) -> float:
    """Let a job hang the daemon, and return after how many seconds from the kill its neighbour runs again."""
    before = machine.cursor()
    neighbour = app.enqueue("once")
    machine.wait_until(lambda: starts(machine, neighbour), "the neighbour runs")
    poison = app.enqueue("holds")
    machine.wait_until(lambda: len(starts(machine, neighbour)) == 2, "the neighbour runs again", 30)
    (killed,) = entries(machine, "Watchdog timeout", before)
    assert "SIGABRT" in killed["MESSAGE"] or entries(machine, "signal SIGABRT", before)
    assert entries(machine, "Fatal Python error: Aborted", before)
    assert [entry for entry in entries(machine, "in holds", before) if "handlers.py" in entry["MESSAGE"]]
    assert entries(machine, "in _beat", before), "every thread's stack is there"
    app.wait_for(poison)
    job = app.wait_for(neighbour)
    assert (job["attempts"], job["crashes"]) == ("1", "1")
    return starts(machine, neighbour)[1] - when(killed)


def test_a_hung_daemon_is_killed_with_its_stack_and_its_jobs_run_again_at_once(
    app: Application, machine: Machine
) -> None:
    app.handlers(HANDLERS)
    app.settings()
    machine.drop_in("jobqd.service", "watchdog", "[Service]\nWatchdogSec=4\n")
    app.start()
    tries = assert_takes_less(RECOVERY, lambda: hang(app, machine), "from the watchdog's kill to the next run")
    assert machine.show("jobqd", "NRestarts") == str(tries)


def test_a_handler_that_blocks_the_loop_is_given_up_before_the_watchdog_acts(
    app: Application, machine: Machine
) -> None:
    app.handlers(HANDLERS)
    app.settings()
    machine.drop_in("jobqd.service", "watchdog", "[Service]\nWatchdogSec=6\n")
    app.start()
    before = machine.cursor()
    neighbour = app.enqueue("once")
    machine.wait_until(lambda: starts(machine, neighbour), "the neighbour runs")
    blocker = app.enqueue("blocks")
    machine.wait_until(lambda: len(starts(machine, neighbour)) == 2, "the neighbour runs again", 30)
    assert not entries(machine, "Watchdog timeout", before)
    assert entries(machine, "gives up", before)
    app.wait_for(blocker)
    assert (app.job(neighbour)["interruptions"], app.job(blocker)["crashes"]) == ("1", "1")
    assert "crashes" not in app.job(neighbour)


def test_a_daemon_without_a_worker_left_says_so_and_is_killed_and_started_again(
    app: Application, machine: Machine
) -> None:
    app.handlers(HANDLERS)
    app.settings(concurrency=2)
    machine.drop_in("jobqd.service", "watchdog", "[Service]\nWatchdogSec=10\n")
    app.start()
    before = machine.cursor()
    stalled = [app.enqueue("stalls") for _ in range(2)]
    machine.wait_until(lambda: all(starts(machine, job) for job in stalled), "both run")
    waits = app.enqueue("nap")
    machine.wait_until(
        lambda: "no worker is left" in machine.show("jobqd", "StatusText"), "the event loop turns and says so"
    )
    machine.wait_until(lambda: entries(machine, "Watchdog timeout", before), "the watchdog acts", 30)
    for job in (*stalled, waits):
        app.wait_for(job)
    (stuck,) = machine.journal("jobqd", after=before, EVENT="daemon.stuck")
    assert (stuck["PRIORITY"], stalled[0] in stuck["MESSAGE"]) == ("2", True)
    assert entries(machine, "Fatal Python error: Aborted", before)
    assert len([entry for entry in entries(machine, "in stalls", before) if "handlers.py" in entry["MESSAGE"]]) == 2
    assert not machine.journal("jobqd", after=before, EVENT="loop.blocked")
    assert machine.show("jobqd", "NRestarts") == "1"
