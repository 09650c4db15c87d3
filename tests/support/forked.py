"""`jobq` as a process of its own that has been imported already: half a second less of this machine for each call.

It is forked from a server that does nothing else (multiprocessing's), so it has the descriptors, the environment, the
directory and the exit status of any process. What a start alone shows needs `python -m jobqd.cli.jobq`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["jobqd.cli.jobq", "jobqd.cli.commands"])


def run_jobq(
    arguments: Sequence[str], directory: Path, environ: Mapping[str, str], *, stdin: str = "", timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run it and return what it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch) / name for name in ("stdin", "stdout", "stderr")]
        for path in streams:
            path.write_text(stdin if path.name == "stdin" else "")
        process = _context.Process(target=_jobq, args=(list(arguments), directory, dict(environ), streams))
        process.start()
        process.join(timeout)
        status = process.exitcode
        if status is None:
            process.kill()
            process.join()
        process.close()
        written = [path.read_bytes().decode() for path in streams[1:]]
    if status is None:
        raise subprocess.TimeoutExpired(list(arguments), timeout, *written)
    return subprocess.CompletedProcess(list(arguments), status, *written)


def _jobq(arguments: list[str], directory: Path, environ: dict[str, str], streams: list[Path]) -> None:
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115 - descriptors, for good
        for number in range(3)
    )
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv = ["jobq", *arguments]

    from jobqd.cli.jobq import main  # noqa: PLC0415 - whoever only starts it needs no command line

    main()
