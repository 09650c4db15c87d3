"""Booting: an overlay on the cached layers, and systemd-nspawn, in namespaces and cgroups of their own.

Everything hangs on one process, unshare(1): when it dies, by whatever signal, its PID namespace ends with every process
of the machine, then its mount namespace with all mounts and files. It dies with the process that boots.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.systemd.lab.machine import Machine
from tests.systemd.lab.possible import Failed
from tests.systemd.lab.prepare import SOURCE, VENV, Prepared, build_wheel

_BOOT_TIMEOUT = 120.0
_CGROUPS = Path("/sys/fs/cgroup")
_numbers = itertools.count(1)
_NAMESPACES = "unshare --pid --fork --kill-child=KILL --mount --mount-proc --propagation private"
_BOOT = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$3" "$1/root/srv/shop/"
shift 3
status=133  # what systemd-nspawn ends with when the machine reboots
while [ $status = 133 ]; do status=0; "$@" || status=$?; done
exit $status
"""
# systemd cleans up after itself only where it is alone. A controller may refuse (cpuset without processors): no loss.
_ENTER_CGROUPS = """
for hierarchy in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do
    group=${hierarchy%/*}/$1
    if [ -e "$hierarchy" ] && mkdir -p "$group"; then echo $$ > "$group/cgroup.procs" || true; fi
done 2>/dev/null
shift
exec "$@"
"""


@contextmanager
def boot(prepared: Prepared) -> Iterator[Machine]:
    """Boot a machine, which ends with the block, with the tree under test in its /srv/shop/.venv.

    Raises Failed if it does not boot twice, and Unavailable.
    """
    name = f"jobqd-lab-{os.getpid()}-{next(_numbers)}"
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "console").open("wb") as console:
        wheel = build_wheel(Path(scratch))
        booting = _Booting(Path(scratch))
        spawn = partial(_spawn, prepared, name, wheel, Path(scratch) / "notify", console.fileno())
        try:
            try:
                pid = booting.pid_after(lambda: booting.begin(spawn))
            except Failed as error:
                print(f"systemd lab: {error}; once more")
                booting.end()
                _remove_cgroups(name)
                pid = booting.pid_after(lambda: booting.begin(spawn))
            machine = Machine(name, pid, booting.pid_after)
            pip = f"{VENV}/bin/pip --disable-pip-version-check install --quiet --no-index --no-deps"
            machine.run(*pip.split(" "), f"/srv/shop/{wheel.name}")
            yield machine
        finally:
            booting.end()
            _remove_cgroups(name)


class _Booting:
    """The process that a machine hangs on, and what is told when the machine has booted: at first, and again."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._process = spawn()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pid_after(self, order: Callable[[], object]) -> int:
        """Give the order to boot and return the process id of the machine's init once it has."""
        # Nobody listens in between: a notice that nobody reads holds up nspawn, and at last the machine's systemd.
        with _listening(self._scratch) as notices:
            order()
            assert self._process is not None
            return _leader(notices, self._process, self._scratch / "console")


def _spawn(prepared: Prepared, name: str, wheel: Path, notify: Path, console: int) -> subprocess.Popen[bytes]:
    mount = prepared.cache / "mount"
    nspawn = [
        "systemd-nspawn", "--boot", "--quiet", f"--directory={mount}/root", "--register=no", "--keep-unit",
        "--console=pipe", "--private-network", "--notify-ready=yes", f"--machine={name}",
        f"--bind-ro={SOURCE}:/usr/src/jobqd",
    ]  # fmt: skip
    layers = ":".join(map(str, prepared.layers))
    script = ["sh", "-c", _BOOT, "sh", str(mount), layers, str(wheel)]
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *_in_own_cgroup(name), *_NAMESPACES.split(" "), *script, *nspawn],
        env={"PATH": os.environ.get("PATH", os.defpath), "NOTIFY_SOCKET": str(notify)},
        stdin=subprocess.DEVNULL, stdout=console, stderr=console,
    )  # fmt: skip


def _in_own_cgroup(name: str) -> list[str]:
    if Path("/run/systemd/system").is_dir():
        return ["systemd-run", "--quiet", "--scope", "--property=Delegate=yes", f"--unit={name}"]
    return ["sh", "-c", _ENTER_CGROUPS, "sh", name]


@contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(directory / "notify"))
        notices.settimeout(0.5)
        try:
            yield notices
        finally:
            (directory / "notify").unlink()


def _leader(notices: socket.socket, process: subprocess.Popen[bytes], console: Path) -> int:
    """Return the process id of the machine's init once it has booted: systemd-nspawn(1), --notify-ready."""
    deadline = time.monotonic() + _BOOT_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(TimeoutError):
            if "READY=1" in notices.recv(4096).decode().splitlines():
                # unshare, the shell, nspawn, and its child that is process 1 of the machine. The number that nspawn
                # tells is one of the PID namespace around it.
                (shell,) = _children(process.pid)
                return next(pid for nspawn in _children(shell) for pid in _children(nspawn) if _innermost(pid) == 1)
    ended = f"ended with {process.returncode}" if process.poll() is not None else f"took over {_BOOT_TIMEOUT:g} s"
    raise Failed(f"the machine did not boot: it {ended}: {console.read_text(errors='replace')[-500:].strip()}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _innermost(pid: int) -> int:
    """Return the process id that a process has for itself: NSpid in proc_pid_status(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def _remove_cgroups(name: str) -> None:
    """Remove the empty cgroups of a machine that has ended; the kernel may take a moment to see that they are."""
    deadline = time.monotonic() + 5
    groups = [*_CGROUPS.glob(f"*/{name}"), *_CGROUPS.glob(name)]
    while groups and time.monotonic() < deadline:
        for group in groups:
            for directory, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
        groups = [group for group in groups if group.exists()]
