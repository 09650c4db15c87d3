"""The version before this one, from the repository: what still runs, or runs again, on the other side of a deploy.

JOBQD_PREVIOUS names it (a commit, a tag). By default it is the last commit whose daemon/jobqd differs from the one that
is tested: HEAD while there are changes that are not committed, else what was there before the last change.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from tests.support.daemon import ROOT

_PACKAGE = "daemon/jobqd"


class NoPreviousError(Exception):
    """There is none here; the text says why."""


@cache
def previous_commit() -> str:
    """Return the commit's id. Raises NoPreviousError."""
    named = os.environ.get("JOBQD_PREVIOUS")
    if named:
        return _git("rev-parse", "--verify", f"{named}^{{commit}}").decode().strip()
    if _git("status", "--porcelain", "--", _PACKAGE).strip():
        return _git("rev-parse", "--verify", "HEAD").decode().strip()
    last = _git("rev-list", "-1", "HEAD", "--", _PACKAGE).decode().strip()
    try:
        return _git("rev-parse", "--verify", f"{last}^").decode().strip()
    except NoPreviousError:
        raise NoPreviousError("the clone is too shallow for an earlier version of daemon/jobqd") from None


def export(directory: Path) -> Path:
    """Unpack the previous version's package; returns what is to be on PYTHONPATH. Raises NoPreviousError.

    The wheel of jobqd is this directory as it is, so nothing has to be built.
    """
    _unpack(directory, _PACKAGE)
    return directory / Path(_PACKAGE).parent


def export_source(directory: Path) -> Path:
    """Unpack the previous version's whole source, of which a wheel can be built. Raises NoPreviousError."""
    _unpack(directory)
    return directory


def _unpack(directory: Path, *paths: str) -> None:
    archive = _git("archive", previous_commit(), *paths)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")


def _git(*arguments: str) -> bytes:
    if not (ROOT / ".git").exists():
        raise NoPreviousError(f"{ROOT} is no git repository")
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, timeout=60)
    except OSError as error:
        raise NoPreviousError(f"git cannot be run: {error}") from None
    if done.returncode:
        raise NoPreviousError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
