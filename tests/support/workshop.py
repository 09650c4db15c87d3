"""A server, an application and a producer together: what a test of the whole daemon begins with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobqd.keys import Keys
from tests.redis_server import RedisServer
from tests.support.daemon import Application, Daemon
from tests.support.ledger import Ledger
from tests.support.producer import Producer, producer


class Workshop:
    """Makes daemons of one application on one server; they are killed at the end if they still run."""

    def __init__(self, server: RedisServer, application: Application, made: Producer) -> None:
        self.server = server
        self.application = application
        self.producer = made
        self.daemons: list[Daemon] = []

    @property
    def ledger(self) -> Ledger:
        return self.application.ledger

    def daemon(self, *arguments: str, **settings: object) -> Daemon:
        """Return a daemon that is not started yet."""
        url = str(settings.pop("redis_url", self.server.url))
        daemon = Daemon(self.application, url, self.producer.keys.prefix, *arguments, **settings)
        self.daemons.append(daemon)
        return daemon

    def start(self, *arguments: str, **settings: object) -> Daemon:
        """Return a daemon that is ready."""
        return self.daemon(*arguments, **settings).start()


@contextmanager
def workshop(server: RedisServer, directory: Path, handlers: str, keys: Keys | None = None) -> Iterator[Workshop]:
    """A workshop for one test or one module."""
    with producer(server, keys or Keys()) as made:
        place = Workshop(server, Application(directory, handlers), made)
        try:
            yield place
        finally:
            for daemon in place.daemons:
                daemon.kill()
