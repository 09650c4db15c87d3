"""Redis servers for tests that do not need both versions: what is shown there is not Redis's part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.redis_server import VERSIONS, RedisServer, binaries

NEWEST_ONLY = pytest.mark.parametrize(
    "redis_server",
    [max((version for version in VERSIONS if version in binaries()), default=VERSIONS[-1])],
    indirect=True,
)
"""Marks a test that uses `redis_server` but shows nothing of Redis: one version is enough."""


def newest_binary() -> Path:
    """Return the newest redis-server of this machine; skips the test where there is none."""
    found = binaries()
    if not found:
        pytest.skip("no redis-server on this machine")
    return found[max(found, key=lambda version: tuple(map(int, version.split("."))))]


def newest_server(*arguments: str) -> RedisServer:
    """Return a server of the newest version, to be used as a context manager."""
    return RedisServer(newest_binary(), *arguments)
