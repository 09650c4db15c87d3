"""The queue's figures are read from Redis when somebody asks, and not more often than they grow old."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobqd.keys import Keys
from jobqd.metrics.queue import FRESH_FOR, QueueReader
from jobqd.store import SyncLink, Target
from tests.redis_server import RedisServer
from tests.support.clock import ManualClock
from tests.support.daemon import ROOT
from tests.support.lab import Lab


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def reader(own_server: RedisServer, clock: ManualClock, lab: Lab) -> Iterator[QueueReader]:
    link = SyncLink(Target(own_server.url), timeout=0.2)
    yield QueueReader(link, lab.keys, clock)
    link.close()


@pytest.fixture
def lab(own_server: RedisServer) -> Iterator[Lab]:
    lab = Lab(own_server.url, Keys())
    yield lab
    lab.close()


def commands(lab: Lab) -> int:
    """How many commands Redis has carried out for others than this question."""
    return int(lab.raw.info("stats")["total_commands_processed"])


def ready(reader: QueueReader) -> int:
    found = reader.read()
    assert found is not None
    return found.ready


def test_whoever_asks_more_often_does_not_load_redis_more(reader: QueueReader, clock: ManualClock, lab: Lab) -> None:
    assert ready(reader) == 0
    lab.put("job")
    before = commands(lab)
    assert [ready(reader) for _ in range(100)] == [0] * 100
    assert commands(lab) == before + 1
    clock.advance(FRESH_FOR)
    assert ready(reader) == 1


def test_a_failure_is_kept_as_long_and_then_forgotten(
    reader: QueueReader, clock: ManualClock, own_server: RedisServer
) -> None:
    own_server.kill()
    assert reader.read() is None
    own_server.start()
    assert reader.read() is None, "a Redis that hangs is not asked again at once"
    clock.advance(FRESH_FOR)
    assert ready(reader) == 0


def test_a_foreign_key_in_place_of_an_index_spoils_no_other_figure(reader: QueueReader, lab: Lab) -> None:
    lab.raw.set(lab.keys.dead, "not a list")
    lab.put("job")
    assert ready(reader) == 1


def test_a_daemon_with_the_least_rights_may_read_all_of_it(own_server: RedisServer, lab: Lab) -> None:
    lines = (ROOT / "config/redis-acl.conf").read_text().splitlines()
    (line,) = [text for text in lines if text.startswith("user jobqd-daemon")]
    lab.raw.execute_command("ACL", "SETUSER", *[word for word in line.split()[1:] if not word.startswith("#")], ">x")
    lab.raw.sadd(lab.keys.held, "type:mail")
    lab.raw.zadd(lab.keys.held_for("type:mail"), {"held": 10})
    for number in range(50):
        lab.put(f"job-{number}", score=number)
    lab.raw.hset(lab.keys.daemon("w"), mapping={"instance": "a"})
    lab.raw.zadd(lab.keys.daemons, {"w": 1e12})
    restricted = Target(own_server.url, username="jobqd-daemon", password="x")
    link = SyncLink(restricted, timeout=2)
    found = QueueReader(link, lab.keys, ManualClock()).read()
    link.close()
    assert found is not None
    assert (found.ready, found.held, len(found.daemons)) == (50, {"type:mail": 1}, 1)
