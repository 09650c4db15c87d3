"""Connections: made when needed, dropped when out of step, errors turned into decisions."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis.asyncio

from jobqd.errors import ConfigError, StoreError, StoreFault
from jobqd.keys import Keys, Seat
from jobqd.scripts import script
from jobqd.store import Link, SyncLink, Target, running
from jobqd.store.link import pack
from tests.redis_server import RedisServer
from tests.support.proxy import reply_thief
from tests.support.servers import newest_server

ERRORS = [
    ("LOADING Redis is loading the dataset in memory", StoreFault.DOWN),
    ("READONLY You can't write against a read only replica.", StoreFault.READONLY),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", StoreFault.READONLY),
    ("MOVED 3999 127.0.0.1:6381", StoreFault.READONLY),
    ("ASK 3999 127.0.0.1:6381", StoreFault.READONLY),
    ("UNBLOCKED force unblock from blocking operation", StoreFault.READONLY),
    ("TRYAGAIN Multiple keys request during rehashing of slot", StoreFault.BUSY),
    ("CLUSTERDOWN The cluster is down", StoreFault.BUSY),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", StoreFault.BUSY),
    ("OOM command not allowed when used memory > 'maxmemory'.", StoreFault.FULL),
    ("MISCONF Redis is configured to save RDB snapshots", StoreFault.DISK),
    ("NOREPLICAS Not enough good replicas to write.", StoreFault.DISK),
    ("NOAUTH Authentication required.", StoreFault.DENIED),
    ("WRONGPASS invalid username-password pair or user is disabled.", StoreFault.DENIED),
    ("NOPERM this user has no permissions", StoreFault.DENIED),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreFault.WRONGTYPE),
    ("ERR unknown", StoreFault.OTHER),
]


@pytest.mark.parametrize(("answer", "fault"), ERRORS, ids=[answer.split()[0] for answer, _ in ERRORS])
async def test_what_the_server_answers_is_understood(
    link: Link, target: Target, answer: str, fault: StoreFault
) -> None:
    with pytest.raises(StoreError) as asynchronous:
        await link.command("EVAL", "return redis.error_reply(ARGV[1])", 0, answer)
    sync = SyncLink(target)
    with pytest.raises(StoreError) as synchronous:
        sync.command("EVAL", "return redis.error_reply(ARGV[1])", 0, answer)
    sync.close()
    assert (asynchronous.value.fault, synchronous.value.fault) == (fault, fault)


async def test_an_error_of_a_command_inside_a_script_keeps_its_meaning(link: Link, raw: redis.asyncio.Redis) -> None:
    await raw.lpush("list", 1)
    with pytest.raises(StoreError) as error:
        await link.command("EVAL", "return redis.call('HSET', 'list', 'a', 1)", 0)
    assert error.value.fault is StoreFault.WRONGTYPE
    assert link.connected


async def test_a_key_of_a_wrong_type_is_named(link: Link, target: Target, raw: redis.asyncio.Redis, keys: Keys) -> None:
    await raw.set(keys.scheduled, "no sorted set")
    promote = running.promote(keys)
    told = f"{keys.scheduled} is a string, not a zset: RENAME or DEL what stands there"
    with pytest.raises(StoreError, match=told):
        await link.run(promote)
    sync = SyncLink(target)
    with pytest.raises(StoreError, match=told):
        sync.run(promote)
    sync.close()


async def test_calls_wait_for_each_other(link: Link) -> None:
    answers = await asyncio.gather(*(link.command("ECHO", f"{n}") for n in range(50)))
    assert answers == [str(n) for n in range(50)]
    assert link.generation == 1


async def test_an_unknown_script_is_sent_by_its_source(link: Link, raw: redis.asyncio.Redis, keys: Keys) -> None:
    await raw.script_flush()
    await link.run(running.promote(keys))
    assert await raw.script_exists(script("promote").sha) == [True]
    await raw.script_flush()
    await link.run(running.promote(keys))
    assert link.generation == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_dead_connection_is_one_error_and_then_made_anew(
    link: Link, target: Target, raw: redis.asyncio.Redis, kind: str
) -> None:
    sync = SyncLink(target)

    async def call(*command: str) -> object:
        return sync.command(*command) if kind == "sync" else await link.command(*command)

    await raw.client_kill_filter(_id=str(await call("CLIENT", "ID")))
    with pytest.raises(StoreError) as error:
        await call("PING")
    assert error.value.fault is StoreFault.DOWN
    assert await call("PING") == "PONG"
    assert (sync if kind == "sync" else link).generation == 2
    sync.close()


async def test_a_cancelled_call_leaves_no_reply_behind_for_the_next(redis_server: RedisServer) -> None:
    async with reply_thief(redis_server.socket) as thief:
        link = Link(Target(thief.url))
        await link.command("PING")
        thief.hold_reply_to("first")
        first = asyncio.create_task(link.command("ECHO", "first"))
        await thief.executed.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        # redis-py would connect it again without a word, and what was set up on it would be gone.
        assert not link.connected
        thief.let_go.set()
        assert await link.command("ECHO", "second") == "second"
        await link.close()


async def test_a_pipeline_is_not_a_transaction(link: Link, raw: redis.asyncio.Redis) -> None:
    assert await link.pipeline([["SET", "a", 1], ["GET", "a"], ["ZCARD", "none"]]) == ["OK", "1", 0]
    assert "cmdstat_multi" not in await raw.info("commandstats")
    with pytest.raises(StoreError) as error:
        await link.pipeline([["GET", "a"], ["ZCARD", "a"], ["GET", "a"]])
    assert error.value.fault is StoreFault.WRONGTYPE
    # The reply to the third command must not become the answer to this one.
    assert await link.command("ECHO", "in step") == "in step"


async def test_bytes_that_are_no_text_go_and_come_unchanged(link: Link, raw: redis.asyncio.Redis, keys: Keys) -> None:
    strange = b"\xff\xfe id\n{}*"
    await raw.execute_command("HSET", keys.job_prefix.encode() + strange, "status", "queued", "type", "film")
    await raw.execute_command("ZADD", keys.ready, 1, strange)
    claims = await link.run(running.claim(Seat(keys, "w", 15.0), 1, 10, 86400.0, {"film": -1}))
    (job,) = claims.jobs
    assert job.id.encode("utf-8", "surrogateescape") == strange
    beat = await link.run(running.beat(Seat(keys, "w", 15.0), {}, [(job.id, job.fence)]))
    assert beat.lost == []


def test_a_text_with_surrogates_that_stand_for_no_byte_can_be_sent() -> None:
    assert b"half \\ud800 a pair" in pack(("ECHO", "half \ud800 a pair"))
    assert b"a byte \xff" in pack(("ECHO", "a byte \udcff"))


async def test_those_who_wait_for_a_server_that_hangs_fail_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqd.store.link.REPLY_TIMEOUT", 0.5)
    with newest_server() as server:
        link, sync = Link(Target(server.url)), SyncLink(Target(server.url), timeout=0.5)
        await link.command("PING")
        sync.command("PING")
        server.freeze()
        began = time.monotonic()
        answers = await asyncio.gather(*(link.command("PING") for _ in range(20)), return_exceptions=True)
        assert {str(answer) for answer in answers} == {"no reply from Redis within 0.5 s"}
        assert time.monotonic() - began < 5
        with ThreadPoolExecutor(20) as threads:
            tries = [threads.submit(sync.command, "PING") for _ in range(20)]
        assert all(isinstance(each.exception(), StoreError) for each in tries)
        assert time.monotonic() - began < 10
        server.thaw()
        # A call that comes after the failure is tried.
        assert await link.command("PING") == "PONG"
        assert sync.command("PING") == "PONG"
        await link.close()
        sync.close()


def test_a_thread_link_is_used_by_one_call_at_a_time(target: Target) -> None:
    link = SyncLink(target)
    wrong: list[object] = []

    def ask(name: int) -> None:
        for n in range(50):
            if link.command("ECHO", f"{name}-{n}") != f"{name}-{n}":
                wrong.append((name, n))

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    link.close()
    assert wrong == []


def test_a_forked_child_has_a_connection_of_its_own(target: Target) -> None:
    link = SyncLink(target)
    ours = link.command("CLIENT", "ID")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(link.command("CLIENT", "ID")).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    assert theirs != ours
    assert link.command("CLIENT", "ID") == ours
    link.close()


@pytest.mark.parametrize("url", ["http://localhost", "redis+sentinel://h1", "localhost:6379"])
def test_a_url_that_cannot_be_used_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        Target(url)


def test_the_name_of_a_target_holds_no_secret() -> None:
    made = Target("redis://user:secret@example.org:7000/3")
    assert (made.name, made.database) == ("example.org:7000", 3)
