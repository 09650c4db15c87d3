"""A daemon that dies is started again: at once, and however often."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.systemd.lab import Application, Machine, assert_takes_less

HANDLERS = """
import asyncio, os, time
from pathlib import Path
from jobqd import Handlers, Job
handlers = Handlers()

@handlers.job
async def once(job: Job):
    with Path("/var/lib/jobqd/ledger").open("a") as file:
        print(job.id, time.time(), file=file)
    if job.fence == 1:
        await asyncio.sleep(600)

@handlers.job
async def aborts():
    os.abort()

@handlers.job
async def nap():
    return None
"""
RECOVERY = 2.0
BURST, INTERVAL = 5, 10.0
"""systemd's own limit, for units that set none: five starts in ten seconds, DefaultStartLimitBurst= and the like."""


def runs(machine: Machine, job: str) -> list[float]:
    """Return when each run of a job began, in Unix seconds; this host's clock is the machine's."""
    if not machine.exists("/var/lib/jobqd/ledger"):
        return []
    lines = [line.split() for line in machine.read("/var/lib/jobqd/ledger").splitlines()]
    return [float(words[1]) for words in lines if words[0] == job]


def starts(machine: Machine, after: str) -> list[float]:
    """Return when systemd began to start the daemon, each time, in seconds."""
    entries = machine.journal("jobqd", after=after)
    return [int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in entries
            if str(entry["MESSAGE"]).startswith("Starting jobqd.service")]  # fmt: skip


def test_many_poison_jobs_at_once_hit_no_start_limit(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    # One at a time, so that each of them costs the daemon two deaths of its own.
    app.settings(concurrency=1)
    machine.drop_in("jobqd.service", "quick", "[Service]\nRestartSec=10ms\n")
    before = machine.cursor()
    poison = [app.enqueue("aborts") for _ in range(4)]
    app.start()
    for job in poison:
        assert app.wait_for(job, "failed", timeout=60)["crashes"] == "3"
    app.wait_for(app.enqueue("nap"))
    assert machine.show("jobqd", "ActiveState") == "active"
    assert machine.show("jobqd", "NRestarts") == str(2 * len(poison))
    began = starts(machine, before)
    assert len(began) == 2 * len(poison) + 1
    assert machine.show("jobqd", "StartLimitIntervalUSec") == "0"
    quickest = min(later - first for first, later in zip(began, began[BURST:], strict=False))
    if quickest >= INTERVAL:
        pytest.skip(f"no limit is set, but none would have been hit: {BURST + 1} starts took {quickest:.1f} s here")


def time_to_recover(app: Application, machine: Machine) -> float:
    """Kill the daemon while a job runs, and return after how many seconds the job runs again."""
    job = app.enqueue("once")
    machine.wait_until(lambda: runs(machine, job), "the job runs")
    pid = app.host_pid()
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    machine.wait_until(lambda: len(runs(machine, job)) == 2, "the job runs again")
    assert app.wait_for(job)["crashes"] == "1"
    return runs(machine, job)[1] - killed


def test_jobs_of_a_killed_daemon_run_again_within_two_seconds(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    app.start()
    tries = assert_takes_less(RECOVERY, lambda: time_to_recover(app, machine), "from kill -9 to the next run")
    assert machine.show("jobqd", "NRestarts") == str(tries)
