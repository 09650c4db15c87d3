"""What `jobqd check` finds of a Redis that does not answer."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobqd.app import check
from jobqd.settings import load


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody listens, and nobody can as long as it is bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_redis_that_does_not_answer_is_told_in_one_sentence_and_with_its_remedy(closed: int) -> None:
    loaded = load({"redis_url": f"redis://127.0.0.1:{closed}"}, environ={})
    told = next(found.message for found in check(loaded) if found.subject == "redis")
    refused = f"Redis does not answer (127.0.0.1:{closed}): {os.strerror(errno.ECONNREFUSED)}"
    assert told.splitlines() == [refused, "redis_url is set by command line"]
    unset = replace(loaded, sources={**loaded.sources, "redis_url": "default"})
    told = next(found.message for found in check(unset) if found.subject == "redis")
    assert told.splitlines() == [
        refused,
        "redis_url is not set, so this is the default; set JOBQD_REDIS_URL or redis_url in jobqd.toml",
        "to try it out without a Redis: JOBQD_REDIS_URL=embedded://./var/redis, with jobqd[embedded]",
    ]
