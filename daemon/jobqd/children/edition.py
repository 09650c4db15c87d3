"""Which edition of this package lies on disk: an upgrade puts another one under a daemon that runs."""

from __future__ import annotations

import hashlib
from importlib.resources import files


def edition() -> str:
    """Return a digest of the code that both ends of a child's connection run; of whatever is there, as it is now."""
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        for each in sorted(files("jobqd.children").iterdir(), key=lambda each: each.name):
            if each.name.endswith(".py"):
                digest.update(each.name.encode() + each.read_bytes())
    except OSError:
        return ""  # it is being replaced
    return digest.hexdigest()


LOADED = edition()
"""The edition that this process runs."""


def outdated() -> bool:
    """Whether a child that is started now would not speak as this process does; false where nothing can be compared."""
    return LOADED != "" and edition() != LOADED
