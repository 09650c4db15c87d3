"""What every `jobq` command begins with: the settings, the queue, and errors told in one or two lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jobqd.cli.chosen import Server
from jobqd.client.sync import SyncQueue
from jobqd.errors import EX_CONFIG, EX_UNAVAILABLE, JobqdError, StoreError, StoreFault
from jobqd.settings import Loaded, Settings, load
from jobqd.settings.installed import RUN_CREDENTIALS, unit_of
from jobqd.settings.layers import SYSTEM_FILE
from jobqd.store.connect import Target
from jobqd.store.faults import reason_of

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
    instance: str | None = None

    def load(self) -> Loaded:
        """Return the settings, after telling their warnings. Raises ConfigError."""
        values = {} if self.redis_url is None else {"redis_url": self.redis_url}
        config = Server().file(self.config, self.instance, os.environ, elsewhere=bool(values))
        loaded = load(values, environ=os.environ, config=config, cwd=Path(), run_credentials=RUN_CREDENTIALS)
        for warning in loaded.warnings:
            warn(warning)
        return loaded


def warn(text: str) -> None:
    """Tell a person something beside the answer."""
    print(f"jobq: {text}", file=sys.stderr)


@contextmanager
def open_queue(site: Site) -> Iterator[SyncQueue]:
    """Give the queue for one command. Raises ConfigError, and Trouble in place of StoreError."""
    with open_queue_and_settings(site) as (queue, _):
        yield queue


@contextmanager
def open_queue_and_settings(site: Site) -> Iterator[tuple[SyncQueue, Settings]]:
    """Give the queue for one command and the settings that it follows. Raises as `open_queue`."""
    loaded = site.load()
    with SyncQueue.from_settings(loaded.settings, retry_for=RETRY_FOR) as queue:
        try:
            yield queue, loaded.settings
        except StoreError as error:
            explain(error, loaded)


def explain(error: StoreError, loaded: Loaded) -> NoReturn:
    """Raise Trouble that tells what a failed Redis command means, and what to do."""
    where = Target.of(loaded.settings).name
    origin, said = loaded.redis_origin, reason_of(error, where)
    if error.fault is StoreFault.DOWN and loaded.settings.redis_url.startswith("embedded:"):
        remedy = "it runs while its daemon does: start jobqd run, or jobqd run --burst, with the same configuration"
        raise Trouble(f"the embedded Redis of {where} does not run\n      {remedy}; {origin}", EX_UNAVAILABLE) from None
    if error.fault in _UNREACHABLE:
        raise Trouble(f"Redis at {where} does not answer: {said}\n      {origin}", EX_UNAVAILABLE) from None
    if error.fault is StoreFault.DENIED:
        remedy = "check redis_username and redis_password"
        installed = unit_of(loaded.path, SYSTEM_FILE, RUN_CREDENTIALS) is not None
        if installed and loaded.settings.redis_password is None and os.geteuid():
            remedy = "run it with sudo: only the unit and root may read its password"
        raise Trouble(f"Redis at {where} refuses us: {error}\n      {remedy}; {origin}", EX_CONFIG) from None
    if error.fault is StoreFault.TLS:
        raise Trouble(f"no trusted connection to Redis at {where}: {said}\n      {origin}", EX_CONFIG) from None
    if error.fault is StoreFault.WRONGTYPE:
        remedy = "choose another key_prefix or queue, or remove that key"
        raise Trouble(f"a key of the queue holds something else: {error}\n      {remedy}", EX_CONFIG) from None
    raise Trouble(f"Redis at {where} refused a command: {error}", 1) from None
