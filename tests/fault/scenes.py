"""Beginnings that several scenarios have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.fault.laboratory import Laboratory
from tests.redis_server import RedisServer
from tests.support.daemon import Daemon
from tests.support.waiting import eventually

MakeLaboratory = Callable[..., Laboratory]


def connection(server: RedisServer) -> redis.Redis:
    """Return a client that waits as long as it takes: by default redis-py sends a slow command again."""
    return redis.Redis(
        unix_socket_path=str(server.socket), decode_responses=True, socket_timeout=None, retry=Retry(NoBackoff(), 0)
    )


def wait_until_it_sweeps(lab: Laboratory, daemon: Daemon) -> None:
    """Return when a daemon judges the leases of others; that takes a lease."""
    name = f"decoy-{daemon.pid}"
    lab.redis.hset(lab.keys.job(name), mapping={"status": "processing", "type": "none", "worker": "nobody", "fence": 1})
    lab.redis.zadd(lab.keys.active, {name: 1})
    eventually(lambda: lab.redis.zscore(lab.keys.active, name) is None, "a swept decoy", 30)
    lab.redis.delete(lab.keys.job(name))
    lab.redis.zrem(lab.keys.held_for("type:none"), name)
    lab.redis.zrem(lab.keys.ready, name)
    lab.redis.delete(lab.keys.counters)


def busy(lab: Laboratory) -> None:
    """Run a script without end, until it is killed."""
    with pytest.raises(redis.ResponseError):
        connection(lab.server).eval("while true do end", 0)


def killed(lab: Laboratory) -> bool:
    try:
        return bool(connection(lab.server).script_kill())
    except redis.ResponseError:
        return False
