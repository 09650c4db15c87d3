"""Which edition of jobqd lies on disk: an upgrade puts another one under a daemon that runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


class Edition:
    """The package as this process has loaded it; to be made when it starts. Children are of the one on disk."""

    def __init__(self, package: Path = _PACKAGE) -> None:
        self._package = package
        self.told = False
        """Whether the log has said that another one lies on disk, and it still does."""
        self._signature = self.signature()
        self._digest = self._read()

    def signature(self) -> str:
        """Return what changes with every touch of a file: cheap enough for each start of a child."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path in self._sources():
            try:
                found = path.stat()
            except OSError:
                continue  # it is being replaced
            digest.update(f"{path} {found.st_ino} {found.st_mtime_ns} {found.st_size}\n".encode())
        return digest.hexdigest()

    def outdated(self) -> bool:
        """Whether a child that is started now would be of another edition than this process."""
        return self.signature() != self._signature and self._read() != self._digest

    def disturbed(self, signature: str) -> bool:
        """Whether files were replaced since `signature` was made, if only by the same, or another edition is there."""
        return self.signature() != signature or self.outdated()

    def _read(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for path in self._sources():
            try:
                digest.update(str(path).encode() + path.read_bytes())
            except OSError:
                continue
        return digest.hexdigest()

    def _sources(self) -> Iterator[Path]:
        for directory, folders, files in os.walk(self._package):
            folders.sort()
            for name in sorted(files):
                if name.endswith((".py", ".lua")):
                    yield Path(directory, name)
