"""The Lua scripts: one file an operation, its header naming KEYS, ARGV and RETURNS."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's name, source, and the SHA-1 by which Redis knows it."""

    name: str
    source: bytes
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script of that name, as packaged beside this module."""
    source = (files("jobqd.scripts") / f"{name}.lua").read_bytes()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
