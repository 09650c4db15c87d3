"""The journal, as an administrator reads it: entries about a job, whole; a journald that hangs holds nobody up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.lab import Application, Machine

HANDLERS = """
import asyncio, os
from jobqd import Handlers, Job

handlers = Handlers()


@handlers.job
async def talk(job: Job, times: int = 1):
    for number in range(times):
        job.log.info("talking", number=number)
    return os.getpid()


@handlers.job
async def big(job: Job):
    job.log.info("begin " + "ü" * 500_000 + " end", blob="x" * 300_000)


@handlers.job(max_attempts=2, retry_delay="1s")
async def boom():
    raise ValueError("no film\\nof that name")


@handlers.job(max_attempts=1)
async def write(path: str):
    with open(path, "w") as file:
        file.write("x")


@handlers.job(max_attempts=1)
def nice():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
"""


@pytest.fixture
def shop_open(app: Application) -> Application:
    app.handlers(HANDLERS)
    app.settings(retry_delay="1s")
    app.start()
    return app


def entries(machine: Machine, job: str, many: int = 1, **fields: str) -> list[dict[str, Any]]:
    """The entries about a job, once there are so many."""
    found = machine.wait_until(
        lambda: found if len(found := machine.journal(JOB_ID=job, **fields)) >= many else [], f"{many} lines of {job}"
    )
    return list(found)


def test_an_entry_says_what_where_and_how_bad(shop_open: Application, machine: Machine) -> None:
    job = shop_open.enqueue("talk")
    pid = shop_open.wait_for(job)["result"]
    said, completed = entries(machine, job, 2)
    assert said["MESSAGE"] == f"talk {job} talking number=0"
    assert (said["PRIORITY"], said["CODE_FILE"], said["CODE_FUNC"]) == ("6", "/srv/shop/handlers.py", "talk")
    assert HANDLERS.splitlines()[int(said["CODE_LINE"]) - 1].strip() == 'job.log.info("talking", number=number)'
    assert (said["NUMBER"], said["JOB_TYPE"], said["JOB_ATTEMPT"], said["JOB_FENCE"]) == ("0", "talk", "1", "1")
    assert (said["SYSLOG_IDENTIFIER"], said["_SYSTEMD_UNIT"], said["_PID"]) == ("jobqd", "jobqd.service", pid)
    assert (completed["EVENT"], completed["PRIORITY"]) == ("job.completed", "6")
    assert machine.journal("jobqd.service", JOB_ID=job) == [said, completed]


def test_an_exception_of_many_lines_is_one_entry(shop_open: Application, machine: Machine) -> None:
    job = shop_open.enqueue("boom")
    shop_open.wait_for(job, "failed")
    retried, dead = entries(machine, job, 2)
    assert (retried["PRIORITY"], retried["EVENT"]) == ("4", "job.retrying")
    assert (dead["PRIORITY"], dead["EVENT"]) == ("3", "job.dead")
    assert retried["MESSAGE"].startswith(f"boom {job} failed: ValueError: no film | of that name; runs again in ")
    for entry in (retried, dead):
        assert "\n" not in entry["MESSAGE"]
        assert entry["EXCEPTION"].startswith(
            'Traceback (most recent call last):\n  File "/srv/shop/handlers.py", line '
        )
        assert entry["EXCEPTION"].endswith("\nValueError: no film\nof that name")
    assert len(machine.journal(JOB_ID=job)) == 2


def test_a_message_of_a_megabyte_arrives_whole(shop_open: Application, machine: Machine) -> None:
    job = shop_open.enqueue("big")
    shop_open.wait_for(job)
    said, _ = entries(machine, job, 2)
    assert said["MESSAGE"] == f"big {job} begin {'ü' * 500_000} end blob={said['MESSAGE'].rpartition('=')[2]}"
    assert said["BLOB"].startswith("x" * 40_000)
    assert said["CODE_FUNC"] == "big"


@contextmanager
def frozen(machine: Machine, unit: str) -> Iterator[None]:
    pid = machine.host_pid(machine.main_pid(unit))
    os.kill(pid, signal.SIGSTOP)
    try:
        machine.wait_until(lambda: "\nState:\tT" in Path(f"/proc/{pid}/status").read_text(), "the stop")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_journald_that_hangs_holds_nobody_up(shop_open: Application, machine: Machine) -> None:
    # More lines than the socket of journald takes (net.unix.max_dgram_qlen), fewer than journald takes from one unit in
    # half a minute (RateLimitBurst=10000).
    def seconds() -> float:
        began = time.monotonic()
        jobs = [shop_open.enqueue("talk", times=150) for _ in range(20)]
        for job in jobs:
            shop_open.wait_for(job)
        return time.monotonic() - began

    usual = seconds()
    machine.run("journalctl", "--sync")  # what was sent before is before the cursor
    cursor = machine.cursor()
    with frozen(machine, "systemd-journald"):
        hung = seconds()
        assert machine.show("jobqd", "ActiveState") == "active"
    job = shop_open.enqueue("talk")
    shop_open.wait_for(job)
    entries(machine, job)
    lost = machine.wait_until(lambda: machine.journal("jobqd", after=cursor, EVENT="log.dropped"), "the count")
    told = sum(int(entry["COUNT"]) for entry in lost)
    there = len(machine.journal("jobqd", after=cursor, JOB_TYPE="talk"))
    assert told > 1000
    # Of 20 jobs with 151 lines, and one of 2, each line is there or counted; completed runs may be left out by rate.
    left_out = sum(
        int(entry["COUNT"]) for entry in machine.journal("jobqd", after=cursor, EVENT="job.lines_suppressed")
    )
    assert there + told + left_out == 20 * 151 + 2
    assert hung < 3 * usual + 2


# ----------------------------------------------------------------------------------------------------------- jobq logs


def test_jobq_logs_shows_what_the_journal_holds(shop_open: Application, machine: Machine) -> None:
    job = shop_open.enqueue("boom")
    shop_open.wait_for(job, "failed")
    entries(machine, job, 2)
    lines = machine.run("jobq", "logs", job).stdout.splitlines()
    moments = [line[:19] for line in lines if not line.startswith(" ")]
    assert len(moments) == 2
    assert [time.strptime(moment, "%Y-%m-%d %H:%M:%S") for moment in moments]
    assert lines[0][21:].startswith("failed: ValueError: no film | of that name; runs again")
    assert lines[1] == " " * 21 + "Traceback (most recent call last):"
    assert sum("is dead-lettered" in line for line in lines) == 1
    documents = [json.loads(line) for line in machine.run("jobq", "logs", job, "--json").stdout.splitlines()]
    assert [document["event"] for document in documents] == ["job.retrying", "job.dead"]
    assert documents[0]["unit"] == "jobqd.service"
    assert documents[0]["exception"].endswith("no film\nof that name")


def test_jobq_logs_follows(shop_open: Application, machine: Machine) -> None:
    job = shop_open.enqueue("talk")
    shop_open.wait_for(job)
    script = f"echo $$; exec jobq logs -f {job}"
    follower = machine.popen("bash", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert follower.stdout is not None
    inside = follower.stdout.readline().strip()
    assert "talking number=0" in follower.stdout.readline()
    assert "completed" in follower.stdout.readline()
    # The same id once more: a new enqueue of a job that has ended.
    shop_open.redis.hset(f"job:{job}", mapping={"status": "queued", "times": "2"})
    shop_open.redis.zadd("job_queue", {job: 1})
    assert [follower.stdout.readline().split()[-1] for _ in range(2)] == ["number=0", "number=1"]
    assert "completed" in follower.stdout.readline()
    machine.run("kill", "-INT", inside)
    rest, errors = follower.communicate(timeout=20)
    assert (follower.returncode, rest, errors) == (0, "", "")


def test_jobq_logs_says_who_may_read_and_where_else_to_look(shop_open: Application, machine: Machine) -> None:
    nothing = machine.run("jobq", "logs", "no-such-job", check=False)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "there is no such job in the queue either" in nothing.stderr
    job = shop_open.enqueue("talk")
    shop_open.wait_for(job)
    entries(machine, job, 2)
    refused = machine.run("runuser", "-u", "nobody", "--", "jobq", "logs", job, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "use sudo, or join the group systemd-journal" in refused.stderr
    member = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=systemd-journal", "--")
    assert "talking" in machine.run(*member, "jobq", "logs", job).stdout


@pytest.mark.parametrize(
    "name", ["with space", "semi;colon", "quote'\"", "$(id)", "--help", "ünïcode…", "line\nbreak", "x" * 400]
)
def test_jobq_logs_finds_odd_ids(shop_open: Application, machine: Machine, name: str) -> None:
    job = f"{name}{time.monotonic_ns()}"
    shop_open.redis.hset(f"job:{job}", mapping={"status": "queued", "type": "talk"})
    shop_open.redis.zadd("job_queue", {job: 1})
    shop_open.wait_for(job)
    shown: Callable[[], str] = lambda: machine.run("jobq", "logs", "--", job, check=False).stdout  # noqa: E731
    machine.wait_until(lambda: "completed in" in shown(), "its lines")


# ------------------------------------------------------------------------------------------------------------ the hint


def test_a_handler_that_hits_the_hardening_gets_one_hint(shop_open: Application, machine: Machine) -> None:
    jobs = [shop_open.enqueue("write", path="/srv/shop/out.txt") for _ in range(3)]
    kin = shop_open.enqueue("nice")
    for job in (*jobs, kin):
        shop_open.wait_for(job, "failed")
    hints = machine.wait_until(
        lambda: found if len(found := machine.journal("jobqd", EVENT="sandbox.hint")[-2:]) == 2 else [], "two hints"
    )
    by_type = {hint["JOB_TYPE"]: hint for hint in hints}
    assert set(by_type) == {"write", "nice"}
    assert "sudo systemctl edit jobqd.service, [Service] ReadWritePaths=/srv/shop" in by_type["write"]["MESSAGE"]
    assert "/usr/local/share/jobqd/relax.conf" in by_type["nice"]["MESSAGE"]
    assert "SystemCallFilter=" in machine.read("/usr/local/share/jobqd/relax.conf")
    assert {hint["PRIORITY"] for hint in hints} == {"4"}
    invocation = machine.show("jobqd", "InvocationID")
    assert len(machine.journal("jobqd", EVENT="sandbox.hint", _SYSTEMD_INVOCATION_ID=invocation)) == 2

    # What the hint says is what helps.
    machine.drop_in("jobqd.service", "out", "[Service]\nReadWritePaths=/srv/shop\n")
    machine.run("chmod", "777", "/srv/shop")
    machine.systemctl("restart", "jobqd")
    shop_open.wait_for(shop_open.enqueue("write", path="/srv/shop/out.txt"))
    machine.run("chmod", "755", "/srv/shop")
