"""A call to a script or a command, apart from how it is sent: async and sync links run the same calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Generic, TypeVar

from jobqd.keys import BASE_KINDS
from jobqd.scripts import Script

T = TypeVar("T")
Argument = str | bytes | int | float
HELD = 3
"""Where the set of reasons stands in a script's keys."""
REASONS = 50
"""Of so many of them the held set is looked at: a broken producer may name a new type with each job."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A script with its keys and arguments, and how to read its reply."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]
    parse: Callable[[Any], T]

    def by_sha(self) -> tuple[Argument, ...]:
        """The command that names the script by its SHA-1."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_source(self) -> tuple[Argument, ...]:
        """The command that carries the script's source, for a server that does not know it."""
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.args)


def indexes(keys: Sequence[str], reasons: Sequence[str]) -> list[str]:
    """Return the keys of a script that may be of a wrong type: the common ones, and the held sets of these reasons."""
    common = list(keys[: len(BASE_KINDS)])
    return [*common, *(f"{common[HELD]}:{reason}" for reason in dict.fromkeys(("missing", *reasons)))]


def misplaced(keys: Sequence[str], kinds: Sequence[str]) -> str:
    """Return which of `indexes` are not of the type they must be, by what TYPE said of each; empty for none."""
    wrong = [
        f"{key} is a {kind}, not a {expected}"
        for key, kind, expected in zip(keys, kinds, chain(BASE_KINDS, repeat("zset")), strict=False)
        if kind not in (expected, "none")
    ]
    return f"{', '.join(wrong)}: RENAME or DEL what stands there" if wrong else ""


def same(reply: Any) -> Any:
    """Return a reply as it is."""
    return reply


def pairs(flat: Sequence[Any]) -> list[tuple[str, str]]:
    """Return a flat list of names and values as pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def mapping(flat: Sequence[Any]) -> dict[str, str]:
    """Return a flat list of names and values as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
