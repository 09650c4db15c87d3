"""What systemd does with a service of Type=notify and a watchdog: it listens, and ends one that has fallen silent.

Source: sd_notify(3), systemd.service(5), WatchdogSec=.
"""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.waiting import eventually


class Manager:
    """Listens for one service at a time. `watchdog` is WatchdogSec= in seconds."""

    def __init__(self, directory: Path, watchdog: float) -> None:
        self.watchdog = watchdog
        self._address = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._lock = threading.Lock()
        self._messages: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def environ(self) -> dict[str, str]:
        """What systemd sets for the service."""
        return {"NOTIFY_SOCKET": self._address, "WATCHDOG_USEC": str(round(self.watchdog * 1_000_000))}

    def forget(self) -> None:
        """Call before a service is started: what another one said does not count."""
        with self._lock:
            self._messages.clear()

    def times(self, line: str) -> list[float]:
        """Return when (CLOCK_MONOTONIC) each message with this line arrived."""
        with self._lock:
            return [at for at, message in self._messages if line in message.split("\n")]

    def kill_when_silent(self, daemon: Daemon, timeout: float) -> float:
        """End a service that is ready and has not pinged for `watchdog` seconds; returns when it did last."""
        eventually(lambda: self.times("READY=1"), "READY=1")

        def silent() -> bool:
            return time.monotonic() - self._last_sign() > self.watchdog

        eventually(silent, f"no WATCHDOG=1 for {self.watchdog:g} s", timeout)
        last = self._last_sign()
        daemon.signal(signal.SIGABRT)
        return last

    def longest_silence(self) -> float:
        """Return the longest time (s) so far without a sign of a service, since it was ready."""
        signs = [*sorted(self.times("READY=1") + self.times("WATCHDOG=1")), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(signs))

    def _last_sign(self) -> float:
        return max(self.times("READY=1") + self.times("WATCHDOG=1"))

    def _read(self) -> None:
        while message := self._socket.recv(65536):
            with self._lock:
                self._messages.append((time.monotonic(), message.decode()))

    def close(self) -> None:
        """End the thread and the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._address)
        self._thread.join(10)
        self._socket.close()


@contextmanager
def manager(watchdog: float) -> Iterator[Manager]:
    """A manager whose socket is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="jq") as directory:
        made = Manager(Path(directory), watchdog)
        try:
            yield made
        finally:
            made.close()
