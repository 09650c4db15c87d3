"""Quiet: an instance claims no more jobs, and what runs goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.forked import run_jobq
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("started", job.id)
    await ledger.gate("film")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        # Killed daemons of the last test are still on the list of those that run.
        place.producer.redis.flushall()
        yield place


def jobq(place: Workshop, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "JOBQD_REDIS_URL": place.server.url}
    return run_jobq(arguments, place.application.directory, environ, timeout=60)


def test_a_quiet_daemon_claims_nothing_until_it_may_again(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    producer.put("before", "film")
    place.ledger.wait_for("started before")
    told = jobq(place, "quiet", "default")
    assert told.returncode == 0, told.stderr
    assert told.stdout.rstrip().endswith(f"(process {daemon.pid}): quiet, 1 job running")
    producer.put("meanwhile", "film")
    place.ledger.open("film")
    assert producer.wait("before")["status"] == "completed"
    assert producer.status("meanwhile") == "queued"
    daemon.wait_for("daemon.quiet", running=1)
    assert jobq(place, "quiet", "default", "--off").returncode == 0
    assert producer.wait("meanwhile")["status"] == "completed"
    daemon.wait_for("daemon.resumed")
    assert daemon.stop() == 0


def test_the_instance_is_meant_and_no_other(place: Workshop) -> None:
    place.start("--instance", "a")
    place.start("--instance", "b")
    told = jobq(place, "quiet", "a", "--json")
    assert told.returncode == 0
    (said,) = json.loads(told.stdout)["daemons"]
    assert (said["instance"], said["status"]) == ("a", "quiet")
    place.producer.put("film", "film")
    place.ledger.wait_for("started film")
    eventually(lambda: place.producer.job("film")["worker"] != said["worker"])
    unknown = jobq(place, "quiet", "c")
    assert unknown.returncode == 1
    assert "no daemon of instance c runs; these do: a on " in unknown.stderr
    elsewhere = jobq(place, "quiet", "b", "--host", "elsewhere")
    assert elsewhere.returncode == 1


def test_signals_do_the_same(place: Workshop) -> None:
    daemon, producer = place.start(), place.producer
    daemon.signal(signal.SIGUSR1)
    daemon.signal(signal.SIGUSR1)
    daemon.wait_for("daemon.quiet")
    (key,) = eventually(lambda: producer.redis.keys("job_queue:daemon:*"), "its first beat")
    eventually(lambda: producer.redis.hget(key, "status") == "quiet")
    producer.put("film", "film")
    producer.put("other", "film")
    daemon.signal(signal.SIGUSR2)
    place.ledger.wait_for("started film")
    eventually(lambda: producer.redis.hget(key, "status") == "running")
    assert len(daemon.of("daemon.quiet")) == 1
    daemon.signal(signal.SIGUSR1)
    place.ledger.open("film")
    assert daemon.stop() == 0, "a quiet daemon stops as any other"
    assert producer.redis.keys("job_queue:daemon*") == []


def test_a_quiet_daemon_is_reached_although_its_connection_broke(place: Workshop) -> None:
    daemon = place.start()
    assert jobq(place, "quiet", "default").returncode == 0
    place.producer.redis.client_kill_filter(_type="pubsub")
    place.producer.redis.client_kill_filter(_type="normal", skipme=True)
    assert jobq(place, "quiet", "default", "--off").returncode == 0
    daemon.wait_for("daemon.resumed")


def test_a_daemon_that_does_not_answer_is_told_of(place: Workshop) -> None:
    daemon = place.start()
    eventually(lambda: place.producer.redis.zcard("job_queue:daemons") == 1)
    daemon.signal(signal.SIGSTOP)
    told = jobq(place, "quiet", "default")
    daemon.signal(signal.SIGCONT)
    assert told.returncode == 1
    assert "1 daemon did not answer" in told.stderr
    assert "SIGUSR1" in told.stderr


def test_a_full_daemon_that_lost_its_connection_hears_the_order(place: Workshop) -> None:
    """No claim makes the connection anew while every worker is busy."""
    daemon = place.start(concurrency=1)
    place.producer.put("film", "film")
    place.ledger.wait_for("started film")
    place.producer.redis.client_kill_filter(_type="pubsub")
    place.producer.redis.client_kill_filter(_type="normal", skipme=True)
    assert jobq(place, "quiet", "default").returncode == 0
    daemon.wait_for("daemon.quiet")
