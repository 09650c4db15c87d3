"""The Lua scripts: one file an operation, its header naming KEYS, ARGV and RETURNS.

They are read with the code that sends their arguments: an upgrade under a running process must not pair the one with
another version of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's name, source, and the SHA-1 by which Redis knows it."""

    name: str
    source: bytes
    sha: str


def _read() -> Iterator[Script]:
    for each in files("jobqd.scripts").iterdir():
        if each.name.endswith(".lua"):
            source = each.read_bytes()
            yield Script(each.name[:-4], source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


_SCRIPTS = {each.name: each for each in _read()}


def script(name: str) -> Script:
    """Return the script of that name, as packaged beside this module. Raises KeyError for an unknown one."""
    return _SCRIPTS[name]
