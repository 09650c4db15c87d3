"""Before the first job: Redis is waited for, judged, and its prefix taken."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from jobqd.duties import startup
from jobqd.duties.outage import Outage
from jobqd.errors import ConfigError
from jobqd.keys import Keys
from jobqd.store import Link, Target
from tests.redis_server import RedisServer
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world
from tests.support.waiting import soon

SOUND = {"redis_version": "7.0.15", "maxmemory": "0", "maxmemory_policy": "noeviction", "aof_enabled": "1"}


def judged(allow_eviction: bool = False, **info: str) -> dict[str, bool | None]:
    findings = startup.judge({**SOUND, **info}, allow_eviction=allow_eviction)
    return {finding.subject: finding.ok for finding in findings}


def test_a_sound_redis() -> None:
    assert judged() == {"version": True, "eviction": True, "persistence": True}


@pytest.mark.parametrize(
    ("version", "ok"), [("6.0.16", False), ("5.0", False), ("6.2.0", True), ("10.1", True), ("nonsense", False)]
)
def test_a_redis_before_6_2_is_too_old(version: str, ok: bool) -> None:
    assert judged(redis_version=version)["version"] is ok


@pytest.mark.parametrize(
    ("policy", "limit", "allowed", "ok"),
    [
        ("allkeys-lru", "0", False, True), ("allkeys-lru", "100", False, False), ("allkeys-random", "100", True, None),
        ("volatile-lru", "100", False, None), ("noeviction", "100", False, True),
    ],
)  # fmt: skip
def test_a_redis_that_evicts(policy: str, limit: str, allowed: bool, ok: bool | None) -> None:
    assert judged(allowed, maxmemory_policy=policy, maxmemory=limit)["eviction"] is ok


def test_a_redis_without_an_append_only_file_is_warned_of() -> None:
    assert judged(aof_enabled="0")["persistence"] is None


def test_a_redis_that_says_nothing_of_itself_is_warned_of() -> None:
    (finding,) = startup.judge({}, allow_eviction=False)
    assert finding.ok is None


async def test_a_server_that_refuses_info_may_be_used(redis_server: RedisServer, raw: redis.asyncio.Redis) -> None:
    await raw.execute_command("ACL", "SETUSER", "poor", "on", ">x", "~*", "&*", "+@all", "-info")
    link = Link(Target(redis_server.url, username="poor", password="x"))
    assert await startup.redis_info(link) == {}
    await link.close()
    await raw.execute_command("ACL", "DELUSER", "poor")


async def test_redis_is_waited_for_until_it_answers(own_server: RedisServer) -> None:
    own_server.stop()
    clock, log, link = ManualClock(), RecordingLog(), Link(Target(own_server.url))
    waiting = asyncio.create_task(startup.wait_for_redis(link, Outage(world(clock, log=log)), clock))
    for n in range(1, 4):
        await soon(lambda n=n: len(clock.slept) == n)  # type: ignore[misc]
        clock.advance(10)
    own_server.start()
    clock.advance(10)

    async def done() -> bool:
        clock.advance(10)
        return waiting.done()

    await soon(done)
    assert waiting.result()["redis_version"][0].isdigit()
    assert log.events == ["redis.away", "redis.back"]
    await link.close()


async def test_a_stop_ends_the_wait(own_server: RedisServer) -> None:
    own_server.freeze()
    link = Link(Target(own_server.url))
    waiting = asyncio.create_task(startup.wait_for_redis(link, Outage(world()), ManualClock()))
    await soon(lambda: link.generation > 0 or waiting.done())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    own_server.thaw()
    assert await link.command("PING") in ("PONG", b"PONG")
    await link.close()


async def test_one_prefix_holds_one_queue(link: Link, raw: redis.asyncio.Redis, keys: Keys) -> None:
    await startup.claim_prefix(link, keys)
    await startup.claim_prefix(link, keys)
    assert await raw.get(keys.registered) == keys.ready
    with pytest.raises(ConfigError) as error:
        await startup.claim_prefix(link, Keys(keys.prefix, "other"))
    assert keys.ready in str(error.value)
    assert "key_prefix" in str(error.value)
    assert await raw.get(keys.registered) == keys.ready
    await startup.claim_prefix(link, Keys(keys.prefix + "b:", "other"))
