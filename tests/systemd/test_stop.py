"""Stopping, restarting and dying under load: nothing is lost, and systemd is content."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.systemd.lab import Application, Machine

HANDLERS = """
import asyncio, os, time
from pathlib import Path
from jobqd import Handlers, Job, SyncJob
handlers = Handlers()

def note(*words):
    with Path("/var/lib/jobqd/ledger").open("a") as file:
        print(*words, file=file)

@handlers.job
async def nap(job: Job, seconds: float = 0.0):
    note("started", job.id)
    await asyncio.sleep(seconds)
    note("ended", job.id)

@handlers.job
async def film(job: Job, seconds: int = 3):
    note("started", job.id)
    encode = job.exec(
        "ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", f"testsrc=size=64x64:rate=10:duration={seconds}", "-f",
        "null", "-",
    )
    async for line in encode:
        pass
    note("ended", job.id)

@handlers.job
async def blocks(job: Job):
    note("started", job.id)
    await job.stopping.wait()
    time.sleep(600)

@handlers.job
async def aborts(job: Job):
    note("started", job.id)
    await asyncio.sleep(0.2)
    os.abort()

@handlers.job
async def eats(job: Job):
    note("started", job.id)
    if job.fence == 1:
        await asyncio.sleep(0.2)
        eaten = bytearray(800 << 20)
        eaten[:: 4096] = b"x" * len(eaten[:: 4096])
        await asyncio.sleep(600)

@handlers.job(process=True)
def eats_in_a_child(job: SyncJob):
    note("started", job.id)
    if job.fence == 1:
        eaten = bytearray(800 << 20)
        eaten[:: 4096] = b"x" * len(eaten[:: 4096])
        time.sleep(600)
"""
ENOUGH = 300 << 20


@pytest.fixture
def shop_app(app: Application) -> Application:
    app.handlers(HANDLERS)
    return app


def ledger(machine: Machine, line: str) -> int:
    """Return how often a handler has written this line."""
    if not machine.exists("/var/lib/jobqd/ledger"):
        return 0
    return machine.read("/var/lib/jobqd/ledger").splitlines().count(line)


def started(machine: Machine, job: str, times: int = 1, timeout: float = 20.0) -> None:
    machine.wait_until(lambda: ledger(machine, f"started {job}") >= times, f"{job} runs", timeout)


def ffmpegs(machine: Machine) -> int:
    return len(machine.run("pgrep", "-x", "ffmpeg", check=False).stdout.split())


def assert_calm(machine: Machine, unit: str = "jobqd") -> None:
    """The unit has ended well, and its journal has no traceback."""
    assert (machine.show(unit, "Result"), machine.show(unit, "ExecMainStatus")) == ("success", "0"), machine.log(unit)
    assert "Traceback" not in machine.log(unit)


def test_a_stop_lets_ffmpeg_finish_and_does_not_signal_it(shop_app: Application, machine: Machine) -> None:
    shop_app.settings(drain_timeout="30s")
    # Shorter than the film: the daemon asks for more time as it drains.
    machine.drop_in("jobqd.service", "stop", "[Service]\nTimeoutStopSec=1\n")
    shop_app.start()
    film = shop_app.enqueue("film", seconds=14)
    machine.wait_until(lambda: ffmpegs(machine) == 1, "ffmpeg runs")
    stopping = machine.popen("systemctl", "stop", "jobqd")
    machine.wait_until(lambda: "stopping: 1 running" in machine.show("jobqd", "StatusText"), "the countdown")
    assert stopping.wait(60) == 0
    assert_calm(machine)
    job = shop_app.job(film)
    assert (job["status"], job["attempts"], job.get("interruptions")) == ("completed", "1", None)


def test_a_quiet_daemon_is_asked_by_signals_that_its_programs_do_not_see(
    shop_app: Application, machine: Machine
) -> None:
    """The command of docs/operations.md: to the main process alone, because a SIGUSR1 ends most programs."""
    shop_app.settings()
    shop_app.start()
    pid = machine.main_pid("jobqd")
    film = shop_app.enqueue("film", seconds=14)
    machine.wait_until(lambda: ffmpegs(machine) == 1, "ffmpeg runs")
    machine.systemctl("kill", "--kill-whom=main", "--signal=SIGUSR1", "jobqd")
    machine.wait_until(lambda: "; quiet" in machine.show("jobqd", "StatusText"), "the status line")
    waits = shop_app.enqueue("nap")
    machine.wait_until(lambda: ", 1 ready" in machine.show("jobqd", "StatusText"), "a job waits")
    assert ffmpegs(machine) == 1
    assert ledger(machine, f"started {waits}") == 0
    machine.systemctl("kill", "--kill-whom=main", "--signal=SIGUSR2", "jobqd")
    shop_app.wait_for(waits)
    assert shop_app.wait_for(film)["attempts"] == "1"
    assert machine.main_pid("jobqd") == pid


def test_what_outlasts_the_wait_is_handed_back_and_its_ffmpeg_is_gone(shop_app: Application, machine: Machine) -> None:
    shop_app.settings(drain_timeout="1s")
    shop_app.start()
    film, nap = shop_app.enqueue("film", seconds=60), shop_app.enqueue("nap", seconds=60)
    machine.wait_until(lambda: ffmpegs(machine) == 1, "ffmpeg runs")
    began = time.monotonic()
    shop_app.stop()
    assert time.monotonic() - began < 6
    assert_calm(machine)
    assert ffmpegs(machine) == 0
    for job in (film, nap):
        facts = shop_app.job(job)
        assert (facts["status"], facts["interruptions"], facts.get("attempts")) == ("queued", "1", None)


def test_a_stop_that_hangs_is_ended_by_systemd(shop_app: Application, machine: Machine) -> None:
    shop_app.settings(drain_timeout="10m")
    machine.drop_in("jobqd.service", "stop", "[Service]\nTimeoutStopSec=2\n")
    shop_app.start()
    job = shop_app.enqueue("blocks")
    started(machine, job)
    began = time.monotonic()
    shop_app.stop()
    # The last extension was for ten seconds.
    assert time.monotonic() - began < 16
    assert machine.show("jobqd", "Result") == "timeout"
    shop_app.start()
    started(machine, job, 2)


def test_restarts_under_load_lose_nothing(shop_app: Application, machine: Machine) -> None:
    shop_app.settings(drain_timeout="500ms", concurrency=8)
    shop_app.start()
    jobs = [shop_app.enqueue("nap", seconds=0.05) for _ in range(300)]
    long = [shop_app.enqueue("nap", seconds=2) for _ in range(3)]
    for _ in range(3):
        machine.systemctl("restart", "jobqd")
    for job in (*jobs, *long):
        assert shop_app.wait_for(job, timeout=60)["attempts"] == "1", "a restart is no failure"
    shop_app.stop()
    assert_calm(machine)
    assert shop_app.redis.zcard("job_queue:active") == 0


def test_killed_again_and_again_it_loses_nothing_and_is_started_again(shop_app: Application, machine: Machine) -> None:
    shop_app.settings(concurrency=8, tables="[jobs.nap]\nmax_attempts = 100\n")
    shop_app.start()
    jobs = [shop_app.enqueue("nap", seconds=0.1) for _ in range(200)]
    for deaths in range(1, 4):
        done = shop_app.redis.hget("job_queue:counters", "completed")
        machine.wait_until(
            lambda done=done: shop_app.redis.hget("job_queue:counters", "completed") != done, "jobs go on"
        )
        os.kill(shop_app.host_pid(), signal.SIGKILL)
        machine.wait_until(lambda deaths=deaths: machine.show("jobqd", "NRestarts") == str(deaths), "started again")
        machine.wait_until(lambda: machine.show("jobqd", "ActiveState") == "active", "active again")
    for job in jobs:
        shop_app.wait_for(job, timeout=60)


def test_a_poison_job_ends_as_a_dead_letter_and_does_not_stop_the_unit(shop_app: Application, machine: Machine) -> None:
    shop_app.settings()
    shop_app.start()
    poison = shop_app.enqueue("aborts")
    neighbours = [shop_app.enqueue("nap", seconds=0.5) for _ in range(10)]
    job = shop_app.wait_for(poison, "failed", timeout=60)
    assert job["crashes"] == "3"
    for neighbour in neighbours:
        shop_app.wait_for(neighbour)
    assert machine.show("jobqd", "ActiveState") == "active"
    assert machine.show("jobqd", "NRestarts") == "2", "the third time it died alone"


def test_the_kernel_kills_a_child_for_its_memory_and_only_that_run_fails(
    shop_app: Application, machine: Machine
) -> None:
    shop_app.settings(retry_delay="100ms")
    shop_app.start()
    pid = machine.main_pid("jobqd")
    machine.limit_memory(pid, ENOUGH)
    nap, eats = shop_app.enqueue("nap", seconds=6), shop_app.enqueue("eats_in_a_child")
    started(machine, eats)
    started(machine, eats, 2, timeout=60)
    shop_app.wait_for(eats)
    assert shop_app.wait_for(nap)["attempts"] == "1"
    assert (machine.main_pid("jobqd"), machine.show("jobqd", "NRestarts")) == (pid, "0")


@pytest.mark.parametrize("unit", ["jobqd", "jobqd@b"])
def test_a_child_that_the_kernel_killed_is_no_reason_to_stop_the_unit(app: Application, machine: Machine, unit) -> None:
    assert machine.show(unit, "OOMPolicy") == "continue"


def test_systemd_itself_sees_the_kernel_kill_a_child_and_leaves_the_unit(
    shop_app: Application, machine: Machine
) -> None:
    if not machine.limits_memory:
        pytest.skip("cgroup v1, or no memory controller: systemd can neither limit a unit's memory nor see such a kill")
    shop_app.settings(retry_delay="100ms")
    machine.drop_in("jobqd.service", "memory", f"[Service]\nMemoryMax={ENOUGH}\nMemorySwapMax=0\n")
    shop_app.start()
    pid = machine.main_pid("jobqd")
    before = machine.cursor()
    shop_app.wait_for(shop_app.enqueue("eats_in_a_child"), timeout=60)
    told = [str(entry["MESSAGE"]) for entry in machine.journal("jobqd", after=before)]
    assert [message for message in told if "killed by the OOM killer" in message], told
    assert (machine.main_pid("jobqd"), machine.show("jobqd", "NRestarts")) == (pid, "0")


def test_the_kernel_kills_the_daemon_for_its_memory_and_its_jobs_run_again(
    shop_app: Application, machine: Machine
) -> None:
    shop_app.settings()
    shop_app.start()
    machine.limit_memory(machine.main_pid("jobqd"), ENOUGH)
    nap, eats = shop_app.enqueue("nap", seconds=3), shop_app.enqueue("eats")
    shop_app.wait_for(eats, timeout=60)
    assert shop_app.wait_for(nap)["crashes"] == "1"
    assert machine.show("jobqd", "NRestarts") == "1"
    assert machine.show("jobqd", "ActiveState") == "active"


def test_a_deploy_side_by_side_lets_nothing_wait_or_be_lost(shop_app: Application, machine: Machine) -> None:
    """The recipe of docs/operations.md: start b, quiet a, stop a without waiting."""
    for name in ("a", "b"):
        shop_app.settings(name, drain_timeout="1m", concurrency=4)
    shop_app.start("jobqd@a")
    film = shop_app.enqueue("film", seconds=8)
    machine.wait_until(lambda: ffmpegs(machine) == 1, "ffmpeg runs")
    jobs = [shop_app.enqueue("nap", seconds=0.05) for _ in range(100)]
    shop_app.start("jobqd@b")
    quiet = machine.run("jobq", "-i", "a", "quiet", "a")
    assert "quiet, " in quiet.stdout
    machine.systemctl("stop", "--no-block", "jobqd@a")
    for _ in range(50):
        job = shop_app.enqueue("nap")
        began = time.monotonic()
        shop_app.wait_for(job)
        assert time.monotonic() - began < 2, "nothing waits for the deploy"
        jobs.append(job)
    assert machine.show("jobqd@a", "ActiveState") == "deactivating", "the film goes on meanwhile"
    assert shop_app.wait_for(film)["attempts"] == "1"
    for job in jobs:
        assert shop_app.wait_for(job)["attempts"] == "1"
    machine.wait_until(lambda: machine.show("jobqd@a", "ActiveState") == "inactive", "a has stopped")
    assert_calm(machine, "jobqd@a")
    assert machine.show("jobqd@b", "ActiveState") == "active"
