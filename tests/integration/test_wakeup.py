"""Hearing of changes: who is heard, who is not, and what happens when a connection dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from jobqd.errors import StoreError
from jobqd.keys import Keys, Seat
from jobqd.store import Link, Target, running
from jobqd.store.call import Call
from jobqd.wakeup import CHECK_EVERY, POLL_EVERY, Wakeup
from tests.fault.proxy import proxy
from tests.redis_server import RedisServer
from tests.support.assembled import enqueue
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world
from tests.support.proxy import ReplyThief, reply_thief
from tests.support.waiting import soon


class Sleeper:
    """A wake-up with a claim of its own."""

    def __init__(self, target: Target, keys: Keys) -> None:
        self.keys, self.clock, self.log = keys, ManualClock(), RecordingLog()
        self.woken = 0
        self.cancelled: list[str] = []
        self.rests: list[tuple[str, bool]] = []
        self.claiming = True
        self.wakeup = Wakeup(
            target, keys, world(self.clock, log=self.log), on_wake=self._wake, on_cancel=self.cancelled.append,
            on_rest=lambda worker, quiet: self.rests.append((worker, quiet)), claiming=lambda: self.claiming,
        )  # fmt: skip
        self._number = 0

    def _wake(self) -> None:
        self.woken += 1

    async def claim(self) -> running.Claims:
        """Claim as the claimer does: the flag is cleared first."""
        self._number += 1
        self.wakeup.pending = False
        call: Call[Any] = running.claim(Seat(self.keys, "worker-1", 15.0), self._number, 10, 86400.0, {"film": -1})
        return await self.wakeup.link.run(call)


@pytest.fixture
async def sleeper(target: Target, keys: Keys) -> AsyncIterator[Sleeper]:
    made = Sleeper(target, keys)
    yield made
    await made.wakeup.link.close()


@pytest.fixture
async def thief(redis_server: RedisServer) -> AsyncIterator[ReplyThief]:
    async with reply_thief(redis_server.socket) as made:
        yield made


@pytest.fixture
async def remote(thief: ReplyThief, keys: Keys) -> AsyncIterator[Sleeper]:
    """One whose replies can be held back and lost."""
    made = Sleeper(Target(thief.url), keys)
    yield made
    await made.wakeup.link.close()


@pytest.fixture
async def poor(raw: redis.asyncio.Redis) -> AsyncIterator[dict[str, str]]:
    """The login of a user who may not have reads tracked."""
    await raw.execute_command("ACL", "SETUSER", "poor", "on", ">x", "~*", "&*", "+@all", "-client", "+client|id")
    yield {"username": "poor", "password": "x"}
    await raw.execute_command("ACL", "DELUSER", "poor")


async def test_it_begins_with_something_to_look_at(sleeper: Sleeper) -> None:
    assert sleeper.wakeup.pending


async def test_a_plain_zadd_wakes_once_for_each_claim(sleeper: Sleeper, keys: Keys, raw: redis.asyncio.Redis) -> None:
    await sleeper.claim()
    assert not sleeper.wakeup.pending
    for round_ in range(1, 4):
        await enqueue(raw, keys, f"job{round_}", "film")
        await soon(lambda: sleeper.wakeup.pending)
        assert len((await sleeper.claim()).jobs) == 1
        assert not sleeper.wakeup.pending
    assert sleeper.woken == 3


async def test_its_own_claims_do_not_wake_it(sleeper: Sleeper, keys: Keys, raw: redis.asyncio.Redis) -> None:
    for n in range(3):
        await enqueue(raw, keys, f"job{n}", "film")
    await sleeper.claim()
    await sleeper.wakeup.link.command("PING")
    # The control channel shares the connection: whatever was said before this message has arrived.
    await raw.publish(keys.control, "cancel nobody")
    await soon(lambda: sleeper.cancelled == ["nobody"])
    assert sleeper.woken == 0


async def test_a_release_by_another_connection_wakes(
    sleeper: Sleeper, link: Link, keys: Keys, raw: redis.asyncio.Redis
) -> None:
    await sleeper.claim()
    await enqueue(raw, keys, "due", "film")
    await raw.zrem(keys.ready, "due")
    await soon(lambda: sleeper.wakeup.pending)
    await sleeper.claim()
    await raw.zadd(keys.scheduled, {"due": 1})
    await link.run(running.promote(keys))
    await soon(lambda: sleeper.wakeup.pending)


async def test_control_messages_name_jobs_to_cancel(sleeper: Sleeper, keys: Keys, raw: redis.asyncio.Redis) -> None:
    await sleeper.claim()
    await raw.publish(keys.control, "cancel an id with spaces")
    await raw.publish(keys.control, "dance all night")
    await raw.publish(keys.control, "cancel last")
    await soon(lambda: len(sleeper.cancelled) == 2)
    assert sleeper.cancelled == ["an id with spaces", "last"]


@pytest.mark.parametrize("which", ["subscriber", "claims"])
async def test_when_either_connection_dies_both_are_made_anew(
    sleeper: Sleeper, keys: Keys, raw: redis.asyncio.Redis, which: str
) -> None:
    await sleeper.claim()
    assert await sleeper.wakeup.link.healthy()
    clients = await raw.client_list()
    (subscriber,) = [client["id"] for client in clients if int(client["sub"])]
    (claims,) = [client["id"] for client in clients if int(client.get("redir", -1)) == int(subscriber)]
    await raw.client_kill_filter(_id=subscriber if which == "subscriber" else claims)
    if which == "subscriber":
        await soon(lambda: sleeper.wakeup.pending)  # its death is heard at once
    else:
        with pytest.raises(StoreError):
            await sleeper.claim()
    await sleeper.claim()
    after = await raw.client_list()
    (new,) = [client["id"] for client in after if int(client["sub"])]
    assert new != subscriber
    await enqueue(raw, keys, "job", "film")
    await soon(lambda: sleeper.wakeup.pending)
    assert await sleeper.wakeup.link.healthy()


async def test_a_check_finds_that_the_server_has_stopped_tracking(sleeper: Sleeper, raw: redis.asyncio.Redis) -> None:
    await sleeper.claim()
    await sleeper.wakeup.run_once()
    assert sleeper.woken == 0
    await sleeper.wakeup.link.command("CLIENT", "TRACKING", "OFF")
    await sleeper.wakeup.run_once()
    assert sleeper.wakeup.pending
    assert sleeper.woken == 1
    assert not sleeper.wakeup.link.connected


async def test_a_subscriber_that_dies_during_a_check_is_not_connected_again(
    remote: Sleeper, thief: ReplyThief, raw: redis.asyncio.Redis
) -> None:
    await remote.claim()
    (subscriber,) = [client["id"] for client in await raw.client_list() if int(client["sub"])]
    before = (await raw.info("stats"))["total_connections_received"]
    thief.hold_reply_to("TRACKINGINFO")
    check = asyncio.create_task(remote.wakeup.run_once())
    await thief.executed.wait()
    await raw.client_kill_filter(_id=subscriber)
    await soon(lambda: remote.wakeup.pending)
    thief.let_go.set()
    await check
    assert not remote.wakeup.link.connected
    assert (await raw.info("stats"))["total_connections_received"] == before


async def test_a_check_of_a_replaced_subscriber_leaves_the_new_one_alone(
    remote: Sleeper, thief: ReplyThief, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remote.claim()
    monkeypatch.setattr("jobqd.store.tracking.REPLY_TIMEOUT", 0.5)
    thief.hold_reply_to("PING")
    check = asyncio.create_task(remote.wakeup.run_once())
    await thief.executed.wait()
    await remote.wakeup.link.close()
    await remote.claim()
    await check
    assert (remote.wakeup.link.connected, remote.wakeup.link.generation) == (True, 2)
    assert await remote.wakeup.link.healthy()
    assert remote.woken == 0


async def test_a_check_that_fails_leaves_what_a_claim_connected_meanwhile(remote: Sleeper, thief: ReplyThief) -> None:
    await remote.claim()
    thief.lose_reply_to("TRACKINGINFO")
    # The claim waits for the check, and goes before whatever follows from it.
    await asyncio.gather(remote.wakeup.run_once(), remote.claim())
    assert (remote.wakeup.link.connected, remote.wakeup.link.generation) == (True, 2)
    assert await remote.wakeup.link.healthy()


async def test_a_healthy_connection_is_looked_at_each_5_seconds(sleeper: Sleeper) -> None:
    await sleeper.claim()
    stop = asyncio.Event()
    running_ = asyncio.create_task(sleeper.wakeup.run(stop))
    await soon(lambda: sleeper.clock.slept == [CHECK_EVERY])
    sleeper.clock.advance(CHECK_EVERY)
    await soon(lambda: sleeper.clock.slept == [CHECK_EVERY] * 2)
    stop.set()
    await running_


async def test_before_it_is_connected_it_looks_often(sleeper: Sleeper) -> None:
    stop = asyncio.Event()
    running_ = asyncio.create_task(sleeper.wakeup.run(stop))
    await soon(lambda: sleeper.clock.slept == [POLL_EVERY])
    assert sleeper.woken == 1
    stop.set()
    await running_


async def test_refused_tracking_is_said_once_and_polled(
    keys: Keys, raw: redis.asyncio.Redis, redis_server: RedisServer, poor: dict[str, str]
) -> None:
    sleeper = Sleeper(Target(redis_server.url, **poor), keys)
    await sleeper.claim()
    assert sleeper.wakeup.polling
    stop = asyncio.Event()
    running_ = asyncio.create_task(sleeper.wakeup.run(stop))
    for n in range(1, 4):
        await soon(lambda n=n: len(sleeper.clock.slept) == n)  # type: ignore[misc]
        assert sleeper.woken == n
        sleeper.clock.advance(POLL_EVERY)
    assert set(sleeper.clock.slept) == {POLL_EVERY}
    assert len(sleeper.log.of("wakeup.polling")) == 1
    # It still hears of cancellations.
    await raw.publish(keys.control, "cancel job")
    await soon(lambda: sleeper.cancelled == ["job"])
    stop.set()
    await running_
    await sleeper.wakeup.link.close()


@pytest.mark.parametrize("claiming", [True, False])
async def test_a_subscriber_dead_without_a_sign_is_missed_where_tracking_is_refused_too(
    keys: Keys, raw: redis.asyncio.Redis, redis_server: RedisServer, poor: dict[str, str],
    monkeypatch: pytest.MonkeyPatch, claiming: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("jobqd.store.tracking.REPLY_TIMEOUT", 0.5)
    with proxy(redis_server.socket) as net:
        sleeper = Sleeper(Target(net.url, **poor), keys)
        sleeper.claiming = claiming
        link = sleeper.wakeup.link
        await sleeper.claim()
        assert link.refused
        await sleeper.wakeup.run_once()
        net.wither(only_subscribed=True)
        sleeper.clock.advance(CHECK_EVERY - POLL_EVERY)
        await sleeper.wakeup.run_once()
        assert link.connected, "it is asked every 5 seconds only"
        sleeper.clock.advance(POLL_EVERY)
        await sleeper.wakeup.run_once()
        assert (link.connected, sleeper.woken) == (False, 4)
        if claiming:
            await sleeper.claim()
        else:
            await sleeper.wakeup.run_once()
        await raw.publish(keys.control, "quiet worker-1")
        await soon(lambda: sleeper.rests == [("worker-1", True)])
        await link.close()
