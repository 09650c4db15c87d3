"""What handlers in another process did, in the order in which they did it, and gates that hold them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.support.waiting import eventually

_PAUSE = 0.005


class Ledger:
    """A file of lines in the application's directory: handlers write it, tests read it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "ledger"

    def note(self, *words: object) -> None:
        """Add a line; short appends are not torn apart (write(2), O_APPEND)."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode("utf-8", "backslashreplace"))
        os.close(descriptor)

    def lines(self, start: str = "") -> list[str]:
        """Return the lines that begin so."""
        if not self._file.exists():
            return []
        return [line for line in self._file.read_text().splitlines() if line.startswith(start)]

    def wait_for(self, line: str, count: int = 1) -> None:
        """Return when so many equal lines are there."""
        eventually(lambda: self.lines().count(line) >= count, f"{count} x {line!r} in the ledger {self.lines()}")

    def open(self, gate: str) -> None:
        """Let through whoever waits at a gate."""
        (self._directory / f"gate-{gate}").touch()

    def close(self, gate: str) -> None:
        """Hold whoever comes to a gate from now on."""
        (self._directory / f"gate-{gate}").unlink(missing_ok=True)

    def is_open(self, gate: str) -> bool:
        return (self._directory / f"gate-{gate}").exists()

    async def gate(self, name: str) -> None:
        """Wait, in a handler, until the test opens the gate."""
        while not self.is_open(name):
            await asyncio.sleep(_PAUSE)

    def gate_in_thread(self, name: str) -> None:
        """Wait so in a `def` handler, or to block the event loop."""
        while not self.is_open(name):
            time.sleep(_PAUSE)
