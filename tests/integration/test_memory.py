"""A Redis close to its limit: completed jobs are kept for minutes, said once; back to normal, said once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobqd.duties.memory import EVERY, SELDOM, SHORT_TTL, MemoryWatch
from jobqd.keys import Keys
from jobqd.store import Ledger, Link, Target
from tests.redis_server import RedisServer, binaries
from tests.support.lab import DAY, Lab, order
from tests.support.log import RecordingLog
from tests.support.workshop import Workshop, workshop

KEYS = Keys("m:")
BALLAST = 20 * 2**20
"""Bytes beside which a connection more or less does not count."""


@pytest.fixture(params=sorted(binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(binaries()[request.param]) as server:
        yield server


@pytest.fixture
def lab(server: RedisServer) -> Iterator[Lab]:
    lab = Lab(server.url, KEYS)
    lab.raw.setrange("ballast", BALLAST, "x")
    yield lab
    lab.close()


@pytest.fixture
async def link(server: RedisServer) -> AsyncIterator[Link]:
    link = Link(Target(server.url))
    yield link
    await link.close()


def use(lab: Lab, share: float) -> None:
    """Set the limit so that this share of it is used."""
    lab.raw.config_set("maxmemory", int(lab.raw.info("memory")["used_memory"] / share))


async def kept(lab: Lab, ledger: Ledger, to: str, ttl: float) -> int:
    """Return the TTL that a job gets that ends now."""
    claimed = lab.leased(f"{to}{ttl}{lab.numbers['w1']}")
    assert await ledger.settle([order(claimed, to, ttl=ttl)]) == ["ok"]
    return lab.ttl(claimed.id)


async def test_completed_jobs_are_kept_for_minutes_while_memory_is_tight(lab: Lab, link: Link) -> None:
    log = RecordingLog()
    ledger = Ledger(link, KEYS, dead_max=100, trimmed_ttl=DAY)
    watch = MemoryWatch(link, ledger, log)
    assert await watch.run_once() == EVERY  # no limit
    use(lab, 0.85)
    assert await watch.run_once() == EVERY
    assert await kept(lab, ledger, "completed", DAY) > SHORT_TTL
    assert log.events == []

    use(lab, 0.93)
    assert [await watch.run_once(), await watch.run_once()] == [EVERY, EVERY]
    assert log.events == ["redis.memory_tight"]
    assert 0 < await kept(lab, ledger, "completed", DAY) <= SHORT_TTL
    assert 0 < await kept(lab, ledger, "completed", 60) <= 60
    # A dead letter is for a person, who may come tomorrow.
    assert await kept(lab, ledger, "dead", DAY) > SHORT_TTL

    use(lab, 0.85)  # not yet: around a single limit it would go to and fro
    await watch.run_once()
    assert 0 < await kept(lab, ledger, "completed", DAY) <= SHORT_TTL
    assert log.events == ["redis.memory_tight"]
    use(lab, 0.5)
    assert [await watch.run_once(), await watch.run_once()] == [EVERY, EVERY]
    assert log.events == ["redis.memory_tight", "redis.memory_relaxed"]
    assert await kept(lab, ledger, "completed", DAY) > SHORT_TTL
    [told] = log.of("redis.memory_tight")
    assert told["limit_bytes"] > told["size"] > 0.9 * told["limit_bytes"]


async def test_where_info_is_refused_nothing_is_judged(server: RedisServer, lab: Lab) -> None:
    use(lab, 0.95)
    lab.raw.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "+@all", "-info", "~*", "&*")
    link = Link(Target(server.url, username="narrow", password="pw"))
    log, ledger = RecordingLog(), Ledger(link, KEYS, dead_max=100, trimmed_ttl=DAY)
    try:
        assert await MemoryWatch(link, ledger, log).run_once() == SELDOM
        assert log.events == []
        assert await kept(lab, ledger, "completed", DAY) > SHORT_TTL
    finally:
        await link.close()


def policy(lab: Lab, name: str, limit: str = "1gb") -> None:
    lab.raw.config_set("maxmemory", limit)
    lab.raw.config_set("maxmemory-policy", name)


async def test_a_policy_that_changes_is_judged_anew_and_told_once(lab: Lab, link: Link) -> None:
    log = RecordingLog()
    watch = MemoryWatch(link, Ledger(link, KEYS, dead_max=100, trimmed_ttl=DAY), log)
    steps = [
        ("noeviction", "1gb", []),
        ("allkeys-lfu", "0", []),  # without a limit nothing is evicted
        ("allkeys-lfu", "1gb", [("critical", "redis.evicts")]),
        ("allkeys-random", "1gb", []),
        ("noeviction", "1gb", [("info", "redis.evicts_no_more")]),
        ("volatile-ttl", "1gb", [("warning", "redis.warning")]),
        ("allkeys-lru", "1gb", [("critical", "redis.evicts")]),
    ]
    for name, limit, expected in steps:
        policy(lab, name, limit)
        log.records.clear()
        await watch.run_once()
        await watch.run_once()
        assert [(level, event) for level, event, _ in log.records] == expected, (name, limit)
    assert "allkeys-lru" in log.of("redis.evicts")[0]["problem"]


@pytest.mark.parametrize(
    ("name", "allowed", "events"),
    [("allkeys-lru", True, []), ("volatile-lru", False, []), ("allkeys-lru", False, ["redis.evicts"])],
)
async def test_what_the_start_has_told_is_not_told_again(
    lab: Lab, link: Link, name: str, allowed: bool, events: list[str]
) -> None:
    policy(lab, name)
    log = RecordingLog()
    ledger = Ledger(link, KEYS, dead_max=100, trimmed_ttl=DAY)
    await MemoryWatch(link, ledger, log, allow_eviction=allowed).run_once()
    assert log.events == events


async def test_eviction_that_is_allowed_is_a_warning(lab: Lab, link: Link) -> None:
    log = RecordingLog()
    watch = MemoryWatch(link, Ledger(link, KEYS, dead_max=100, trimmed_ttl=DAY), log, allow_eviction=True)
    await watch.run_once()
    policy(lab, "allkeys-lru")
    await watch.run_once()
    assert [(level, event) for level, event, _ in log.records] == [("warning", "redis.warning")]


def test_a_daemon_on_a_full_redis_says_so_and_keeps_results_briefly(server: RedisServer, tmp_path: Path) -> None:
    with workshop(server, tmp_path, "@handlers.job('quick')\nasync def quick(): return 1\n") as place:
        _daemon_on_little_memory(place)


def _daemon_on_little_memory(place: Workshop) -> None:
    redis = place.producer.redis
    redis.setrange("ballast", BALLAST, "x")
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] / 0.94))
    daemon = place.start()
    daemon.wait_for("redis.memory_tight", level="warning")
    assert place.producer.run("a", "quick")["status"] == "completed"
    assert 0 < redis.ttl("job:a") <= SHORT_TTL
