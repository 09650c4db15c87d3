"""What every `jobq` command begins with: the settings, the queue, and errors told in one or two lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jobqd.client.sync import SyncQueue
from jobqd.errors import EX_CONFIG, EX_UNAVAILABLE, JobqdError, StoreError, StoreFault
from jobqd.settings import Loaded, load
from jobqd.store.connect import Target

RETRY_FOR = 1.0
"""Seconds for which a person is left waiting while Redis is away."""
_UNREACHABLE = frozenset({StoreFault.DOWN, StoreFault.BUSY, StoreFault.READONLY})


class Trouble(JobqdError):  # noqa: N818 - it carries an exit status, and is raised in place of an error
    """A command cannot go on; `status` is its exit status."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Site:
    """What the options before the command say about where the queue is."""

    config: Path | None
    redis_url: str | None

    def load(self) -> Loaded:
        """Return the settings, after telling their warnings. Raises ConfigError."""
        values = {} if self.redis_url is None else {"redis_url": self.redis_url}
        loaded = load(values, environ=os.environ, config=self.config, cwd=Path())
        for warning in loaded.warnings:
            warn(warning)
        return loaded


def warn(text: str) -> None:
    """Tell a person something beside the answer."""
    print(f"jobq: {text}", file=sys.stderr)


@contextmanager
def open_queue(site: Site) -> Iterator[SyncQueue]:
    """Give the queue for one command. Raises ConfigError, and Trouble in place of StoreError."""
    loaded = site.load()
    with SyncQueue.from_settings(loaded.settings, retry_for=RETRY_FOR) as queue:
        try:
            yield queue
        except StoreError as error:
            explain(error, loaded)


def explain(error: StoreError, loaded: Loaded) -> NoReturn:
    """Raise Trouble that tells what a failed Redis command means, and what to do."""
    where = Target.of(loaded.settings).name
    origin = f"redis_url is set by {loaded.sources['redis_url']}"
    if loaded.sources["redis_url"] == "default":
        origin = "redis_url is not set, so this is the default; set JOBQD_REDIS_URL or redis_url in jobqd.toml"
    if error.fault in _UNREACHABLE:
        raise Trouble(f"Redis at {where} does not answer: {error}\n      {origin}", EX_UNAVAILABLE) from None
    if error.fault is StoreFault.DENIED:
        remedy = "check redis_username and redis_password"
        raise Trouble(f"Redis at {where} refuses us: {error}\n      {remedy}; {origin}", EX_CONFIG) from None
    if error.fault is StoreFault.TLS:
        raise Trouble(f"no trusted connection to Redis at {where}: {error}\n      {origin}", EX_CONFIG) from None
    if error.fault is StoreFault.WRONGTYPE:
        remedy = "choose another key_prefix or queue, or remove that key"
        raise Trouble(f"a key of the queue holds something else: {error}\n      {remedy}", EX_CONFIG) from None
    raise Trouble(f"Redis at {where} refused a command: {error}", 1) from None
