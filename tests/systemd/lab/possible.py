"""Whether a lab can be booted here. What is known to be impossible is told from what should have worked.

With JOBQD_LAB=required, as CI sets it where the programs are installed, the latter fails the tests instead of skipping
them: else a lab that never boots again would go unnoticed. A download that fails is none of that: see prepare.fetch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

_PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv")
_CGROUPS = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))
_NAMESPACES = "unshare --pid --fork --mount --mount-proc --net --uts --ipc --cgroup --propagation private"
# All that is mounted goes with the namespace, whatever happens.
_MOUNT = """
mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" "$1/m" \
    && mount -t overlay overlay -o "lowerdir=/usr,upperdir=$1/u,workdir=$1/w" "$1/m"
"""
_ENTER = 'mkdir "$1" && { sh -c \'echo $$ > "$1/cgroup.procs"\' sh "$1"; done=$?; rmdir "$1"; exit $done; }'
_MIRROR_TIMEOUT = 20.0


class Unavailable(Exception):
    """No lab can be booted here, and why: a reason to skip."""


class Failed(Exception):
    """A lab could be booted here, as far as could be seen, and yet it was not."""


def tolerated(error: Unavailable | Failed) -> bool:
    """Whether the tests may be skipped for this."""
    return isinstance(error, Unavailable) or os.environ.get("JOBQD_LAB") != "required"


def check() -> None:
    """Raise Unavailable if this machine is known not to be able to boot one."""
    if os.geteuid() != 0:
        raise Unavailable("the systemd lab needs root")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)}: apt-get install debootstrap systemd-container")
    with tempfile.TemporaryDirectory() as directory:
        _try("no namespaces and file systems may be made here (a container without privileges?)",
             *_NAMESPACES.split(), "sh", "-c", _MOUNT, "sh", directory)  # fmt: skip
    groups = next((path for path in _CGROUPS if path.is_dir()), None)
    if groups is None:
        raise Unavailable("no cgroups are mounted here")
    _try("/sys/fs/cgroup cannot be written here", "sh", "-c", _ENTER, "sh", str(groups / f"jobqd-probe-{os.getpid()}"))


def check_mirror(url: str, suite: str) -> None:
    """Raise Unavailable if a Debian mirror does not answer."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/dists/{suite}/Release", timeout=_MIRROR_TIMEOUT):
            pass
    except (OSError, ValueError) as error:
        raise Unavailable(f"no Debian to be had from {url}: {error}") from None


def _try(otherwise: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{otherwise}: {done.stderr.strip() or f'it ended with {done.returncode}'}")
