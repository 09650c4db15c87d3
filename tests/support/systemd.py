"""systemd's end of the notify socket, as tests of a daemon in a process of its own need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fault.manager import Manager
from tests.support.waiting import PATIENCE, eventually


class Notified(Manager):
    """What a service told, to be asked for by its lines."""

    def values(self, name: str) -> list[str]:
        """Return the values of every `NAME=value` so far, in order."""
        with self._lock:
            lines = [line for _, message in self._messages for line in message.split("\n")]
        return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]

    def wait_for(self, name: str, text: str, timeout: float = PATIENCE) -> str:
        """Return the first value of NAME that holds this text, as soon as it is told."""
        return eventually(
            lambda: next((value for value in self.values(name) if text in value), ""),
            f"{name}=…{text}…, told were {self.values(name)}",
            timeout,
        )


@contextmanager
def notified(watchdog: float) -> Iterator[Notified]:
    """A manager whose socket is removed at the end; `watchdog` is WatchdogSec= in seconds."""
    with TemporaryDirectory(prefix="jq") as directory:
        made = Notified(Path(directory), watchdog)
        try:
            yield made
        finally:
            made.close()
