"""The booted machine under the hands of a test: commands, files, units, journal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import redis

T = TypeVar("T")

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_PAGER": "",
}
_PAUSE = 0.02
_CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """A machine that runs; `pid` is its init's process id on this host, `name` the name of its cgroups.

    `pid_after` gives an order to boot and returns that process id when the machine has booted.
    """

    def __init__(self, name: str, pid: int, pid_after: Callable[[Callable[[], object]], int]) -> None:
        self.name = name
        self.pid = pid
        self._pid_after = pid_after

    @property
    def root(self) -> Path:
        """Its file system, seen from here. An absolute symbolic link in it leads into this host: use `run` there."""
        return Path(f"/proc/{self.pid}/root")

    def reboot(self) -> None:
        """Reboot it; returns when every unit that is started at boot has started."""
        self.pid = self._pid_after(lambda: self.run("systemctl", "reboot", check=False))

    # ------------------------------------------------------------------------------------------------- commands

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout: float = 60.0,
        text: str | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root and return what it wrote; `text` is its standard input.

        Fails the test if it does not end with 0 (unless `check` is off) or within `timeout` seconds.
        """
        done = subprocess.run(
            self.entering(cwd, *command), env={**_ENVIRONMENT, **(environ or {})}, input=text or "", check=False,
            capture_output=True, text=True, errors="backslashreplace", timeout=timeout,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def shell(self, script: str, **options: Any) -> str:
        """Run a shell script inside and return its standard output; options as of `run`."""
        return self.run("bash", "-euc", script, **options).stdout

    def popen(self, *command: str, cwd: str = "/", **options: Any) -> subprocess.Popen[str]:
        """Start a command inside; options as of subprocess.Popen."""
        return subprocess.Popen(self.entering(cwd, *command), env=_ENVIRONMENT, text=True, **options)

    def entering(self, cwd: str, *command: str) -> list[str]:
        """Return the command line that runs a command inside."""
        return ["nsenter", "--target", str(self.pid), "--all", "--", "env", f"--chdir={cwd}", *command]

    # ---------------------------------------------------------------------------------------------------- files

    def write(self, path: str, text: str, mode: int | None = None) -> None:
        """Write a file, and the directories above it. One that is there keeps its mode unless told; others get 644."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = not file.exists()
        file.write_text(text)
        if fresh or mode is not None:
            file.chmod(0o644 if mode is None else mode)

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return (self.root / path.lstrip("/")).read_text()

    def exists(self, path: str) -> bool:
        """Whether there is something of this name, a dangling symbolic link included."""
        return os.path.lexists(self.root / path.lstrip("/"))

    # ---------------------------------------------------------------------------------------------------- units

    def systemctl(self, *arguments: str, check: bool = True, timeout: float = 100.0) -> str:
        """Run systemctl and return its standard output."""
        return self.run("systemctl", *arguments, check=check, timeout=timeout).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def main_pid(self, unit: str) -> int:
        """Return the process id inside of a unit's main process, 0 if it has none."""
        return int(self.show(unit, "MainPID"))

    def host_pid(self, inside: int) -> int:
        """Return the process id that a process of the machine has on this host; see NSpid in proc_pid_status(5)."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it has ended
                found = re.search(r"^NSpid:.*\b(\d+)$", status.read_text(), re.MULTILINE)
                if found and int(found[1]) == inside and (status.parent / "ns/pid").readlink() == namespace:
                    return int(status.parent.name)
        raise AssertionError(f"there is no process {inside} in the machine")

    @property
    def limits_memory(self) -> bool:
        """Whether `MemoryMax=` of a unit works: it needs cgroup v2 with the memory controller handed to the machine."""
        controllers = self.root / "sys/fs/cgroup/cgroup.controllers"
        return controllers.exists() and "memory" in controllers.read_text().split()

    def limit_memory(self, inside: int, size: int) -> None:
        """Let the kernel kill processes (OOM) once this one and its later children use more than `size` bytes together.

        Where this host has the memory controller in a hierarchy of its own (cgroup v1), which the machine's systemd can
        neither use nor watch: `MemoryMax=` does nothing there. Elsewhere the limit holds for the unit of the process.
        """
        outside = self.host_pid(inside)
        legacy = _CGROUPS / "memory" / self.name
        if legacy.is_dir():
            group = legacy / f"limited-{inside}"
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(size))
            (group / "cgroup.procs").write_text(str(outside))
            return
        path = Path(f"/proc/{outside}/cgroup").read_text().strip().removeprefix("0::/")
        (_CGROUPS / path / "memory.max").write_text(str(size))

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """Write a drop-in of a unit and load it."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        self.systemctl("daemon-reload")

    # -------------------------------------------------------------------------------------------------- journal

    def cursor(self) -> str:
        """Return the place that the journal has reached, for `journal(after=…)`."""
        lines = self.run("journalctl", "-n", "1", "-o", "json", "--output-fields=MESSAGE").stdout.splitlines()
        return str(json.loads(lines[-1])["__CURSOR"]) if lines else ""

    def journal(self, unit: str | None = None, *, after: str = "", **fields: str) -> list[dict[str, Any]]:
        """Return the entries of a unit and of fields (JOB_ID="x"), the oldest first, as `journalctl -o json` has them.

        Entries that systemd itself writes about the unit are among those of the unit. A field of odd bytes is a
        list of numbers there: systemd's Journal Export Formats, JSON.
        """
        matches = [f"{name}={value}" for name, value in fields.items()]
        command = ["journalctl", "--output=json", "--all", "--no-pager", "--quiet", *(["-u", unit] if unit else [])]
        if after:
            # Not --after-cursor: with matches it skips the first entry that matches, wherever that is.
            command.append(f"--cursor={after}")
        found = [json.loads(line) for line in self.run(*command, *matches).stdout.splitlines()]
        return [entry for entry in found if entry["__CURSOR"] != after]

    def log(self, unit: str) -> str:
        """Return the journal of a unit as text, for the message of a failed test."""
        done = self.run("journalctl", "-u", unit, "--no-pager", "--output=short-precise", check=False)
        return done.stdout or done.stderr

    # ---------------------------------------------------------------------------------------------------- Redis

    def redis(self) -> redis.Redis:
        """Return a client of the machine's Redis, through its Unix socket; close it, or use it in a `with`."""
        return redis.Redis(unix_socket_path=str(self.root / "run/redis/redis-server.sock"), decode_responses=True)

    # -------------------------------------------------------------------------------------------------- waiting

    def wait_until(self, probe: Callable[[], T], what: str = "", timeout: float = 20.0) -> T:
        """Return the first true value of `probe`; fails the test after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (value := probe()):
            if time.monotonic() > deadline:
                raise AssertionError(f"did not happen within {timeout:g} s: {what or probe!r}; last seen: {value!r}")
            time.sleep(_PAUSE)
        return value
