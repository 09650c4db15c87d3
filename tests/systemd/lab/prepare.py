"""What a lab boots from: a Debian root file system and, on top of it, the application's environment. Both are cached.

The cache is $XDG_CACHE_HOME/jobqd-systemd-lab (else ~/.cache/...), 700 MB. Entries are named by a digest of what went
into them, are made under a lock in a directory aside and renamed, and are never changed; delete them at will.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.systemd.lab.possible import Failed, Unavailable, check, check_mirror

SOURCE = Path(os.environ.get("JOBQD_LAB_SOURCE") or Path(__file__).parents[3])
"""The tree under test; $JOBQD_LAB_SOURCE names another, such as that of an older commit."""
VENV = "/srv/shop/.venv"
SUITE, PYTHON = "bookworm", "3.11"
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "ca-certificates", "curl", "make", "procps",
    "redis-server",
)  # fmt: skip
_DEBIAN = "http://deb.debian.org/debian"
# redis-py asks for it below Python 3.11.3, and pip judges that by the version of the host.
_ALSO = ("async-timeout>=4.0.3",)
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
_FETCHES = 3
# In a mount namespace of its own, so that nothing stays mounted whatever happens.
_BUILD_LAYER = """
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/layer,workdir=$2/work" "$2/root"
mkdir -p "$2/root/tmp/wheels"
mount --bind "$3" "$2/root/tmp/wheels"
chroot "$2/root" /bin/sh -euc "$4" sh "$5"
umount "$2/root/tmp/wheels"
rmdir "$2/root/tmp/wheels"
"""
_IN_LAYER = f"""
python3 -m venv {VENV}
{VENV}/bin/pip --disable-pip-version-check install --quiet --no-index --find-links /tmp/wheels $1
ln -s {VENV}/lib/python3*/site-packages/imageio_ffmpeg/binaries/ffmpeg-* /usr/local/bin/ffmpeg
echo '127.0.0.1 localhost' > /etc/hosts
printf '%s\\n' 'unixsocket /run/redis/redis-server.sock' 'unixsocketperm 777' 'save ""' >> /etc/redis/redis.conf
"""


@dataclass(frozen=True)
class Prepared:
    """What a lab boots from: overlay layers, the topmost first, and wheels that are not installed yet."""

    cache: Path
    layers: tuple[Path, ...]


def prepare(tell: Callable[[str], object] = print) -> Prepared:
    """Return what to boot from, made now unless it is cached. Raises Unavailable and Failed."""
    check()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jobqd-systemd-lab"
    (cache / "mount").mkdir(parents=True, exist_ok=True)
    requirements = _requirements()
    base = f"{SUITE}-{_digest(*_PACKAGES)}"
    upper = f"{base}-{_digest(PYTHON, VENV, _IN_LAYER, *requirements)}"
    with _alone(cache):
        root = _cached(cache / f"root-{base}", tell, _make_root)
        wheels = cache / f"wheels-{_digest(PYTHON, *requirements)}"
        _cached(wheels, tell, lambda at: _download(requirements, at))
        layer = _cached(cache / f"shop-{upper}", tell, lambda at: _make_layer(root, wheels, requirements, at))
    return Prepared(cache, (layer / "layer", root))


def build_wheel(directory: Path, source: Path = SOURCE) -> Path:
    """Build the wheel of a tree, by default the one under test, into a directory."""
    with tempfile.TemporaryDirectory() as backend:
        # Without isolation where the backend is there already: it would be downloaded for each build.
        if importlib.util.find_spec("hatchling"):
            options = ["--no-build-isolation"]
        else:
            requires = tomllib.loads((source / "pyproject.toml").read_text())["build-system"]["requires"]
            fetch([*_PIP, "download", "--dest", backend, *requires])
            options = ["--no-index", "--find-links", backend]
        _call([*_PIP, "wheel", "--no-deps", *options, f"--wheel-dir={directory}", str(source)])
    return next(directory.glob("jobqd-*.whl"))


def fetch(command: list[str], tell: Callable[[str], object] = print) -> None:
    """Run a command that only downloads, up to three times. That it fails tells of the network: Unavailable."""
    for left in reversed(range(_FETCHES)):
        try:
            _call(command)
            return
        except Failed as error:
            tell(f"systemd lab: {error}")
            if not left:
                raise Unavailable(f"not to be downloaded now: {error}") from None


def _requirements() -> list[str]:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["demo"], *_ALSO]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Let one process at a time fill the cache; the others then find it filled."""
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cached(entry: Path, tell: Callable[[str], object], make: Callable[[Path], None]) -> Path:
    if not entry.exists():
        tell(f"systemd lab: making {entry} (once)")
        draft = entry.with_name(f"draft-{os.getpid()}")
        draft.mkdir()
        try:
            make(draft)
            draft.rename(entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return entry


def _make_root(at: Path) -> None:
    mirror = _mirror()
    check_mirror(mirror, SUITE)
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    with tempfile.TemporaryDirectory() as scratch:
        packages = f"{scratch}/packages.tgz"
        fetch([*debootstrap, f"--make-tarball={packages}", SUITE, f"{scratch}/aside", mirror])
        _call([*debootstrap, f"--unpack-tarball={packages}", SUITE, str(at), mirror])
    # Downloaded packages and lists: 60 MB that nobody reads again.
    shutil.rmtree(at / "var/cache/apt")
    shutil.rmtree(at / "var/lib/apt/lists")


def _mirror() -> str:
    """Return where this machine gets the suite from, else where everybody does."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return _DEBIAN
    return next((line.split(" ")[0] for line in lines if line.endswith(f" {SUITE} main")), _DEBIAN)


def _download(requirements: list[str], at: Path) -> None:
    only = ["--only-binary=:all:", f"--python-version={PYTHON}"]
    fetch([*_PIP, "download", *only, "--dest", str(at), *requirements])


def _make_layer(root: Path, wheels: Path, requirements: list[str], at: Path) -> None:
    for name in ("layer", "work", "root"):
        (at / name).mkdir()
    names = " ".join(requirement.replace(" ", "") for requirement in requirements)
    _call(["unshare", "--mount", "--propagation", "private", "sh", "-c", _BUILD_LAYER, "sh",
           str(root), str(at), str(wheels), _IN_LAYER, names])  # fmt: skip
    shutil.rmtree(at / "work")


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise Failed(f"{command[0]} failed with {done.returncode}: {last}")
