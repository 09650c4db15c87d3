"""The daemon as its users have it: a process of its own, told by settings, watched through its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.support.ledger import Ledger
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
_PRELUDE = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from jobqd import Fail, Handlers, Job, LeaseLost, Retry, Snooze, SyncJob
from tests.support.ledger import Ledger

handlers = Handlers()
ledger = Ledger(Path(__file__).parent)
"""


class Application:
    """A directory with a module of handlers, and the ledger that they write."""

    def __init__(self, directory: Path, handlers: str) -> None:
        self.directory = directory
        self.ledger = Ledger(directory)
        (directory / "handlers.py").write_text(_PRELUDE + handlers)


class Daemon:
    """One `jobqd run`; a context manager that leaves no process behind. Settings are given by their names.

    `package` is the directory that has the package jobqd: another version of it, perhaps.
    """

    def __init__(
        self, application: Application, redis_url: str, prefix: str = "", *arguments: str,
        package: Path = ROOT / "daemon", **settings: object,
    ) -> None:  # fmt: skip
        self.ledger = application.ledger
        self._directory = application.directory
        self._arguments = arguments
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JOBQD_")},
            "PYTHONPATH": f"{package}:{ROOT}",
            "JOBQD_REDIS_URL": redis_url,
            "JOBQD_KEY_PREFIX": prefix,
            "JOBQD_RUNTIME_DIR": str(application.directory / "run"),
            "JOBQD_LOG_FORMAT": "json",
            **{f"JOBQD_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._ended = False
        self.records: list[dict[str, Any]] = []
        """Its log so far; a line that is not JSON (a traceback) is under "text"."""

    def start(self, *, ready: bool = True) -> Daemon:
        """Start it; with `ready`, return when it says that it is."""
        command = [sys.executable, "-m", "jobqd.cli.daemon", "run", *self._arguments]
        self._process = subprocess.Popen(
            command, cwd=self._directory, env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="backslashreplace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if ready:
            self.wait_for("daemon.ready")
        return self

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def of(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the log's lines of an event with these fields."""
        with self._changed:
            return [record for record in self.records if _fits(record, event, fields)]

    def wait_for(self, event: str, timeout: float = PATIENCE, **fields: object) -> dict[str, Any]:
        """Return the first line of an event with these fields, as soon as it is logged."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = next((record for record in self.records if _fits(record, event, fields)), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"no {event} {fields} within {timeout:g} s\n{self.log}"
                assert not self._ended, f"it ended without {event} {fields}\n{self.log}"
                self._changed.wait(left)

    @property
    def ended(self) -> bool:
        """Whether it has closed its log, which it does when it ends."""
        with self._changed:
            return self._ended

    @property
    def log(self) -> str:
        """The whole log as text, for the message of a failed test."""
        return "\n".join(record.get("text") or json.dumps(record) for record in self.records)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon's process alone."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return its exit status once it has ended; negative for a signal."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout:g} s\n{self.log}") from None
        self._reader.join(PATIENCE)
        return status

    def stop(self, timeout: float = PATIENCE) -> int:
        """Ask it to stop (SIGTERM) and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL); harmless if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        self._reader.join(PATIENCE)
        if process.stderr is not None:
            process.stderr.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self.records.append(_record(line.rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {"event": "", "text": line}
    return record if isinstance(record, dict) else {"event": "", "text": line}


def _fits(record: dict[str, Any], event: str, fields: dict[str, object]) -> bool:
    return record["event"] == event and all(record.get(name) == value for name, value in fields.items())
