"""Shared fixtures: a real Redis of each version, a fresh key prefix for each test, and connections to it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import redis
import redis.asyncio

from tests.redis_server import VERSIONS, RedisServer, binaries

if TYPE_CHECKING:  # a unit test must not pay for, or fail with, what it does not use
    from jobqd.keys import Keys
    from jobqd.store.connect import Target
    from jobqd.store.link import Link
    from tests.support.lab import Lab

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=VERSIONS, ids=[f"redis-{version}" for version in VERSIONS])
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that all tests of the session share; a test that stops or reconfigures one starts its own."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no redis-server {request.param} on this machine")
    with RedisServer(binary) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A running server of this test alone (the oldest version there is), to be stopped, frozen or filled."""
    found = binaries()
    if not found:
        pytest.skip("no redis-server on this machine")
    with RedisServer(found[min(found)]) as server:
        yield server


@pytest.fixture
def keys(redis_server: RedisServer) -> Iterator[Keys]:
    """The key names of this test, under a prefix of its own; all data is removed afterwards."""
    from jobqd.keys import Keys  # noqa: PLC0415 - see above

    yield Keys(f"t{next(_numbers)}:")
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.flushall()
    client.close()


@pytest.fixture
def target(redis_server: RedisServer) -> Target:
    """The shared server, as the store is told of it."""
    from jobqd.store.connect import Target  # noqa: PLC0415 - see above

    return Target(redis_server.url)


@pytest.fixture
async def link(target: Target) -> AsyncIterator[Link]:
    """A connection of the store."""
    from jobqd.store.link import Link  # noqa: PLC0415 - see above

    link = Link(target)
    yield link
    await link.close()


@pytest.fixture
async def raw(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain redis-py client, to write as a raw producer does and to look at what is there."""
    client = redis.asyncio.Redis(unix_socket_path=str(redis_server.socket), decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
def lab(redis_server: RedisServer, keys: Keys) -> Iterator[Lab]:
    """The scripts under the hands of a test: raw writes, store calls, a look at every index."""
    from tests.support.lab import Lab  # noqa: PLC0415 - see above

    lab = Lab(redis_server.url, keys)
    yield lab
    lab.close()
