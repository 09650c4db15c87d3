"""External programs of jobs end with their run, however it ends; with the daemon, however that ends."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.store import SyncLink, Target, producing
from tests.redis_server import RedisServer
from tests.support.processes import alive
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = '''
FAMILY = "sleep 1000 & echo $!; echo $$; wait"

@handlers.job("runs")
async def runs(job: Job):
    async for line in job.exec("sh", "-c", FAMILY, kill_after=1):
        ledger.note("pid", line)

@handlers.job("runs_shortly", timeout="300ms", max_attempts=1)
async def runs_shortly(job: Job):
    async for line in job.exec("sh", "-c", FAMILY, kill_after=1):
        ledger.note("pid", line)

@handlers.job("leaves_it_running")
async def leaves_it_running(job: Job):
    async for line in job.exec("sh", "-c", FAMILY, kill_after=1):
        ledger.note("pid", line)
        if len(ledger.lines("pid")) == 2:
            return "left early"

@handlers.job("runs_in_thread")
def runs_in_thread(job: SyncJob):
    for line in job.exec("sh", "-c", FAMILY, kill_after=1):
        ledger.note("pid", line)

@handlers.job("leaves_it_stubborn", drain_timeout=0)
async def leaves_it_stubborn(job: Job):
    async for line in job.exec("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.05; done", kill_after="1m"):
        ledger.note("pid", line)
        return "left early"

ONCE = """
exec 9>>"$0"; flock -n 9 || echo beside another
trap '' TERM; echo started; echo $$; while :; do sleep 0.05; done
"""

@handlers.job("stubborn")
async def stubborn(job: Job):
    async for line in job.exec("sh", "-c", ONCE, str(Path(__file__).parent / "once")):
        ledger.note("stubborn", line)

@handlers.job("stubborn_alone", process=True)
async def stubborn_alone(job: Job):
    await stubborn(job)

@handlers.job("counts")
async def counts(job: Job):
    done = await job.exec("sh", "-c", "echo one; echo two")
    return done.output
'''


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        for pid in pids(place):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        place.producer.redis.flushall()


def pids(place: Workshop) -> list[int]:
    return [int(line.split()[1]) for line in place.ledger.lines("pid ")]


def family(place: Workshop) -> list[int]:
    """Return the ids of the program and its child once both run."""
    eventually(lambda: len(pids(place)) == 2)
    return pids(place)


def assert_gone(processes: list[int]) -> None:
    eventually(lambda: not any(map(alive, processes)), f"the end of {processes}")


def test_its_output_is_the_handlers(place: Workshop) -> None:
    place.start()
    assert place.producer.run("job", "counts")["result"] == '"one\\ntwo\\n"'


def test_a_timeout_ends_the_program(place: Workshop) -> None:
    place.start()
    job = place.producer.run("job", "runs_shortly")
    assert job["error_type"] == "Timeout"
    # The job was settled only after its processes had ended.
    assert not any(map(alive, family(place)))


def test_a_program_that_the_handler_left_running_ends_with_the_run(place: Workshop) -> None:
    place.start()
    job = place.producer.run("job", "leaves_it_running")
    assert job["result"] == '"left early"'
    assert not any(map(alive, family(place)))


def test_a_stop_does_not_lose_the_result_of_a_handler_whose_program_takes_long_to_end(place: Workshop) -> None:
    daemon = place.start()
    place.producer.put("job", "leaves_it_stubborn")
    (line,) = eventually(lambda: place.ledger.lines("pid"))
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 6
    job = place.producer.job("job")
    assert (job["result"], job.get("interruptions")) == ('"left early"', None)
    assert not alive(int(line.split()[1]))


@pytest.mark.parametrize("job_type", ["runs", "runs_in_thread"])
def test_a_cancel_ends_the_program(place: Workshop, job_type: str) -> None:
    daemon = place.start()
    place.producer.put("job", job_type)
    processes = family(place)
    link = SyncLink(Target(place.server.url))
    link.run(producing.cancel(place.producer.keys, ["job"], job_ttl=60.0))
    link.close()
    assert_gone(processes)
    eventually(lambda: daemon.of("job.cancelled") or daemon.of("job.refused"))


def test_ctrl_c_ends_the_program_when_the_job_is_handed_back(place: Workshop) -> None:
    daemon = place.start(drain_timeout="200ms")
    place.producer.put("job", "runs")
    processes = family(place)
    daemon.signal(signal.SIGINT)
    daemon.wait_for("daemon.draining")
    assert all(map(alive, processes))
    assert daemon.wait() == 0, daemon.log
    assert not any(map(alive, processes))
    assert place.producer.job("job")["interruptions"] == "1"


def test_no_program_outlives_a_daemon_that_is_killed(place: Workshop) -> None:
    daemon = place.start()
    place.producer.put("job", "runs")
    processes = family(place)
    daemon.kill()
    assert_gone(processes)


@pytest.mark.parametrize("job_type", ["stubborn", "stubborn_alone"])
def test_no_program_of_a_killed_daemon_runs_beside_that_of_the_next_run(place: Workshop, job_type: str) -> None:
    first = place.start()
    place.producer.put("job", job_type)
    place.ledger.wait_for("stubborn started")
    first.kill()
    second = place.start()
    eventually(lambda: place.ledger.lines("stubborn").count("stubborn started") == 2)
    assert place.ledger.lines("stubborn beside") == []
    assert second.of("daemon.programs_left") == []


@pytest.mark.parametrize("job_type", ["stubborn", "stubborn_alone"])
def test_the_lock_that_the_next_daemon_waits_for_is_held_until_the_last_program_is_gone(
    place: Workshop, tmp_path: Path, job_type: str
) -> None:
    daemon = place.start()
    place.producer.put("job", job_type)
    pid = int(eventually(lambda: place.ledger.lines("stubborn")[1:])[0].split()[1])
    daemon.kill()
    (path,) = (tmp_path / "run").glob("*.programs")
    with path.open() as programs:
        fcntl.flock(programs, fcntl.LOCK_EX)
        assert not alive(pid)


def test_a_program_that_nobody_can_end_does_not_hold_the_next_daemon_up_for_long(
    place: Workshop, tmp_path: Path
) -> None:
    place.start().kill()
    (path,) = (tmp_path / "run").glob("*.programs")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        daemon = place.start()
        assert len(daemon.of("daemon.programs_left")) == 1
        assert place.producer.run("counts", "counts")["status"] == "completed"
