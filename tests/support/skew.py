"""A clock of Redis that a test can move, while nobody else's moves: its gettimeofday() is ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# The size of a file is what the clock is ahead by: one system call tells it, and a test changes it at once.
_SHIM = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec real;
    struct stat ahead;
    const char *file = getenv("SKEW_FILE");
    int failed = syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);

    now->tv_sec = real.tv_sec + (file && !stat(file, &ahead) ? ahead.st_size : 0);
    now->tv_usec = real.tv_nsec / 1000;
    return failed;
}
"""


class Skew:
    """How far a server's clock is ahead. Start the server with `environ`."""

    def __init__(self, directory: Path, seconds: int = 0) -> None:
        """Build what has to be loaded into the server; `compiler()` must be there."""
        source, library = directory / "skew.c", directory / "skew.so"
        self._file = directory / "skew"
        source.write_text(_SHIM)
        subprocess.run([compiler() or "cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
        self.environ = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._file)}
        self.set(seconds)

    def set(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead from now on."""
        changed = self._file.with_suffix(".new")
        changed.write_bytes(b"x" * seconds)
        changed.rename(self._file)


def compiler() -> str | None:
    """Return this machine's C compiler, if it has one."""
    return shutil.which("cc")
