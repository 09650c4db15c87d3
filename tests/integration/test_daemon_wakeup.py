"""Waking up: at once where the server tracks, without polling; by polling where it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("pick")
async def pick(job: Job):
    ledger.note("pick", time.time())
    return time.time()
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place


def pickup(place: Workshop, job_id: str) -> float:
    """Return the seconds between a plain ZADD and the handler's first line."""
    producer = place.producer
    producer.redis.hset(f"job:{job_id}", mapping={"status": "queued", "type": "pick"})
    sent = time.time()
    producer.redis.zadd("job_queue", {job_id: 10})
    return float(producer.wait(job_id)["result"]) - sent


def commands_of_daemons(place: Workshop, seconds: float) -> list[str]:
    """Return what daemons send in so many seconds; commands inside scripts are theirs, not the daemon's."""
    found = []
    with place.producer.redis.monitor() as monitor:
        first = None
        for message in monitor.listen():
            first = message["time"] if first is None else first
            if message["time"] - first > seconds:
                return found
            if message["client_type"] != "lua":
                found.append(message["command"].split()[0])
    return found


def test_an_idle_daemon_picks_up_a_plain_zadd_in_milliseconds(place: Workshop) -> None:
    place.start()
    times = sorted(pickup(place, f"job{n}") for n in range(20))
    assert times[10] < 0.02, times


def test_an_idle_daemon_sends_fewer_than_five_commands_a_second(place: Workshop) -> None:
    place.start()
    pickup(place, "first")
    assert len(commands_of_daemons(place, 3.0)) < 15


def test_connections_of_the_wakeup_are_rebuilt_when_one_is_killed(place: Workshop) -> None:
    place.start()
    pickup(place, "before")
    producer = place.producer
    # The subscriber alone: the server then tells of nothing, and in silence.
    (subscriber,) = [client for client in producer.redis.client_list() if int(client["sub"])]
    producer.redis.client_kill_filter(_id=subscriber["id"])
    eventually(
        lambda: [c for c in producer.redis.client_list() if int(c["sub"]) and c["id"] != subscriber["id"]],
        "a new subscriber",
    )
    assert pickup(place, "after") < 0.2
    # It is tracking again that woke it, not a poll.
    (tracked,) = [client for client in producer.redis.client_list() if int(client.get("redir", -1)) > 0]
    assert tracked["redir"] in {c["id"] for c in producer.redis.client_list() if int(c["sub"])}


@pytest.mark.parametrize("rules", ["-client", "-client +client|id"], ids=["all of CLIENT", "CLIENT TRACKING"])
def test_where_tracking_is_refused_the_daemon_polls_and_says_so_once(place: Workshop, rules: str) -> None:
    producer = place.producer
    producer.redis.execute_command("ACL", "SETUSER", "jobqd", "on", ">secret", "~*", "&*", "+@all", *rules.split())
    daemon = place.start(redis_username="jobqd", redis_password="secret")
    warning = daemon.wait_for("wakeup.polling")
    assert warning["level"] == "warning"
    assert "NOPERM" in warning["error"] or "permission" in warning["error"]
    for n in range(3):
        assert pickup(place, f"job{n}") < 2
    assert len(daemon.of("wakeup.polling")) == 1
    assert len(daemon.of("redis.away")) == 0


def test_a_wrong_password_is_named_and_waited_for(place: Workshop) -> None:
    producer = place.producer
    producer.redis.execute_command("ACL", "SETUSER", "jobqd", "on", ">secret", "~*", "&*", "+@all")
    daemon = place.daemon(redis_username="jobqd", redis_password="wrong").start(ready=False)
    away = daemon.wait_for("redis.away", fault="denied")
    assert "password" in away["problem"]
    assert "wrong" not in away["error"].split()
    producer.redis.execute_command("ACL", "SETUSER", "jobqd", ">wrong")
    daemon.wait_for("daemon.ready")
