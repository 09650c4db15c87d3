"""The version before this one and this one, side by side on one queue under load, and the way back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.previous import NoPreviousError, export_source, previous_commit
from tests.systemd.lab import Application, Machine, Unavailable
from tests.systemd.lab.prepare import build_wheel
from tests.systemd.lab.versions import change_over, load, make_side

HANDLERS = """
import asyncio
from pathlib import Path
import jobqd
from jobqd import Handlers, Job
handlers = Handlers()

def note(what, job):
    with Path("/var/lib/jobqd/ledger").open("a") as file:
        file.write(f"{what} {job.id} {jobqd.__file__.split('/')[2]}\\n")

@handlers.job(max_attempts=1)
async def count(job: Job, seconds: float = 0.0):
    note("started", job)
    await asyncio.sleep(seconds)
    note("ended", job)
"""
OLD, NEW = "shop-a", "shop-b"


@pytest.fixture(scope="module")
def wheels(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of the previous version, for a, and of this one, for b."""
    try:
        source = export_source(tmp_path_factory.mktemp("source"))
    except NoPreviousError as reason:
        if "JOBQD_PREVIOUS" in os.environ:
            raise
        pytest.skip(f"no previous version to compare with: {reason}")
    # This one's lies where the machine was given it.
    (ours,) = (machine.root / "srv/shop").glob("jobqd-*.whl")
    try:
        return {"a": build_wheel(tmp_path_factory.mktemp("wheel"), source), "b": ours}
    except Unavailable as reason:
        pytest.skip(f"no wheel of the previous version: {reason}")


@pytest.fixture
def sides(app: Application, machine: Machine, wheels: dict[str, Path]) -> Iterator[Application]:
    app.settings(app_dir="/srv/shop", concurrency=8, lease="5s")
    for side, wheel in wheels.items():
        make_side(machine, side, wheel, HANDLERS)
    yield app
    machine.systemctl("stop", "jobqd*")
    machine.shell("rm -rf /srv/shop-[ab]")


def ledger(machine: Machine) -> list[list[str]]:
    """Return what the handlers have noted: what, which job, in which directory their jobqd lies."""
    if not machine.exists("/var/lib/jobqd/ledger"):
        return []
    return [line.split() for line in machine.read("/var/lib/jobqd/ledger").splitlines()]


def more_end(machine: Machine, side: str, jobs: int = 100) -> None:
    """Return when so many more jobs have ended under one version."""

    def ended() -> int:
        return sum(line[0] == "ended" and line[2] == side for line in ledger(machine))

    enough = ended() + jobs
    machine.wait_until(lambda: ended() >= enough, f"{side} runs jobs", 60)


def gone(machine: Machine, unit: str) -> None:
    machine.wait_until(lambda: machine.show(unit, "ActiveState") == "inactive", f"{unit} has stopped", 60)


def test_a_deploy_and_the_way_back_under_load_lose_nothing(sides: Application, machine: Machine) -> None:
    sides.start("jobqd@a")
    with load(sides, "count") as jobs:
        more_end(machine, OLD)
        change_over(machine, "a", "b")
        more_end(machine, NEW)
        gone(machine, "jobqd@a")
        os.kill(sides.host_pid("jobqd@b"), 9)
        more_end(machine, NEW)
        change_over(machine, "b", "a")
        more_end(machine, OLD)
        gone(machine, "jobqd@b")
        # This time the new version dies for good, with jobs of both lengths: the old one takes them over.
        sides.start("jobqd@b")
        more_end(machine, NEW)
        machine.systemctl("kill", "--signal=KILL", "jobqd@b")
        machine.systemctl("stop", "jobqd@b")
        more_end(machine, OLD)
    for job in jobs:
        assert sides.wait_for(job, timeout=60)["attempts"] == "1"
    counters = sides.redis.hgetall("job_queue:counters")
    assert int(counters["completed"]) == int(counters["entered"]) == len(jobs)
    ran_to_the_end = {line[1] for line in ledger(machine) if line[0] == "ended"}
    assert ran_to_the_end == set(jobs)
    runs = Counter(line[1] for line in ledger(machine) if line[0] == "started")
    again = [job for job, times in runs.items() if times > 1]
    assert 0 < len(again) <= 16, "two deaths of a daemon with eight workers"
    assert all(sides.job(job)["crashes"] for job in again)
    print(f"{previous_commit()[:7]} and this version: {len(jobs)} jobs, {len(again)} of them run twice")
