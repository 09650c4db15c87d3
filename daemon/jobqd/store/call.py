"""A call to a script or a command, apart from how it is sent: async and sync links run the same calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jobqd.keys import BASE_KINDS
from jobqd.scripts import Script

T = TypeVar("T")
Argument = str | bytes | int | float


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


def misplaced(keys: Sequence[str], kinds: Sequence[str]) -> str:
    """Return which of a script's keys are not of the type they must be, by what TYPE said of each; empty for none."""
    wrong = [
        f"{key} is a {kind}, not a {expected}"
        for key, kind, expected in zip(keys, kinds, BASE_KINDS, strict=False)
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
