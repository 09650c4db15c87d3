"""One daemon an instance and queue on a machine, and the memory of who it was before this one.

The lock is held by the kernel for as long as the process lives, so whoever gets it knows that the last holder is dead.
Host names and process ids prove nothing: containers share the one and reuse the other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from pathlib import Path
from types import TracebackType

from jobqd.errors import ConfigError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return the kernel's id of this boot, empty where there is none (proc(5), random/boot_id)."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def place_of(server: str, database: int, ready: str) -> str:
    """Return what tells one queue from all others: the name of its Redis, the database, the key of the queue."""
    return f"{server}/{database} {ready}"


def socket_path(directory: Path, instance: str, place: str) -> Path:
    """Return where the daemon of this name at this place listens for `jobqd reload`: beside its lock file."""
    return directory / f"{_stem(instance, place)}.sock"


def _stem(instance: str, place: str) -> str:
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"jobqd-{re.sub(r'[^A-Za-z0-9_.-]', '_', instance)}-{digest}"


def _opened(path: Path) -> int:
    """Open a lock file. Raises ConfigError."""
    try:
        # Close-on-exec is Python's default: no child process keeps the lock of a dead daemon, unless it is meant to.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"runtime_dir: cannot open the lock file {path}: {error.strerror}; set runtime_dir to a directory "
        "that this user may write"
    )


class ProgramsLock:
    """Held by a daemon together with its guardian, so that it is free only when a dead one's programs are gone too.

    To be opened while the instance's lock is held. `descriptor` is what the guardian has to keep open.
    """

    def __init__(self, directory: Path, instance: str, place: str) -> None:
        """Open it. Raises ConfigError."""
        self.path = directory / f"{_stem(instance, place)}.programs"
        self.descriptor = _opened(self.path)

    def take(self) -> bool:
        """Take the lock; false while the programs of the last holder run."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def replace(self) -> None:
        """Take a new one in its place: the old one is left to what could not be ended. Raises ConfigError."""
        self.path.unlink(missing_ok=True)
        new = _opened(self.path)
        os.dup2(new, self.descriptor, inheritable=False)
        os.close(new)
        self.take()

    def close(self) -> None:
        """Let go of this end of it."""
        os.close(self.descriptor)


class InstanceLock:
    """The lock file of one instance at one place (see `place_of`)."""

    def __init__(self, directory: Path, instance: str, place: str) -> None:
        self.path = directory / f"{_stem(instance, place)}.lock"
        self._instance = instance
        self._file: int | None = None
        self.predecessor: str | None = None
        """The worker id of the last holder if it died in this boot, else None."""

    def acquire(self) -> None:
        """Take the lock and read who held it last. Raises ConfigError if a living process holds it."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owner()
        except OSError as error:
            raise _unusable(self.path, error) from None
        file = _opened(self.path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise ConfigError(
                f"another jobqd of instance {self._instance!r} runs on this queue here (it holds {self.path}); "
                "give this one a name of its own: --instance NAME"
            ) from None
        self._file = file
        self.predecessor = self._read(file)

    def _check_owner(self) -> None:
        """Refuse a directory that somebody else made, as anybody can in /tmp. Raises ConfigError."""
        owner = self.path.parent.stat().st_uid
        if owner not in (os.getuid(), 0):
            raise ConfigError(
                f"runtime_dir: {self.path.parent} belongs to another user (uid {owner}); "
                "set runtime_dir to a directory of this user"
            )

    def record(self, worker: str) -> None:
        """Write who holds the lock now; only after the predecessor's jobs were taken back, since it is forgotten."""
        assert self._file is not None  # noqa: S101 - a defect, not an input
        text = json.dumps({"worker": worker, "boot_id": boot_id(), "pid": os.getpid()}).encode()
        # Padded, so that a shorter name leaves nothing of a longer one; cut, so that nothing else's rest is left.
        os.ftruncate(self._file, os.pwrite(self._file, text.ljust(256) + b"\n", 0))
        os.fsync(self._file)

    def forget(self) -> None:
        """Take note that nothing is left to be taken back; the lock is held on."""
        if self._file is not None:
            os.ftruncate(self._file, 0)

    def release(self) -> None:
        """Let the lock go. Do it last: whoever gets it knows that nothing of this daemon is left."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> InstanceLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @staticmethod
    def _read(file: int) -> str | None:
        try:
            last = json.loads(os.pread(file, 4096, 0))
        except ValueError:
            return None
        if not isinstance(last, dict) or last.get("boot_id") != boot_id():
            return None
        worker = last.get("worker")
        return worker if isinstance(worker, str) and worker else None
