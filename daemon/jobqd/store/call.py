"""A call to a script or a command, apart from how it is sent: async and sync links run the same calls."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Generic, TypeVar

from jobqd.errors import StoreError, StoreFault
from jobqd.keys import BASE_KINDS
from jobqd.scripts import Script

T = TypeVar("T")
Argument = str | bytes | int | float
_HELD = 3
"""Where the set of reasons stands in a script's keys."""
_REASONS = 50
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


def explain(error: StoreError, call: Call[Any]) -> Generator[tuple[str | int, ...], Any, StoreError]:
    """Return an error of a wrong type with the key it comes from: Redis does not say which of them it is.

    Yields commands, and is sent the reply to each: None if it failed.
    """
    if error.fault is not StoreFault.WRONGTYPE:
        return error
    # The common indexes, and the held sets of the reasons there are.
    common = list(call.keys[: len(BASE_KINDS)])
    reasons = yield ("SRANDMEMBER", common[_HELD], _REASONS)
    keys = [*common, *(f"{common[_HELD]}:{reason}" for reason in dict.fromkeys(("missing", *(reasons or ()))))]
    wrong = []
    for key, expected in zip(keys, chain(BASE_KINDS, repeat("zset")), strict=False):
        kind = yield ("TYPE", key)
        if kind is None:
            return error
        if kind not in (expected, "none"):
            wrong.append(f"{key} is a {kind}, not a {expected}")
    return StoreError(error.fault, f"{', '.join(wrong)}: RENAME or DEL what stands there") if wrong else error


def same(reply: Any) -> Any:
    """Return a reply as it is."""
    return reply


def pairs(flat: Sequence[Any]) -> list[tuple[str, str]]:
    """Return a flat list of names and values as pairs."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def mapping(flat: Sequence[Any]) -> dict[str, str]:
    """Return a flat list of names and values as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
