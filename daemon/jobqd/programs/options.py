"""How an external program is to be run, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobqd.units import parse_duration


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """How to run a program.

    `cwd`: its working directory, the daemon's if None. `env`: variables added to the daemon's environment,
    which comes without the password of Redis.
    `stderr`: "tail" keeps the last 50 lines for the error, "merge" puts them among the output's lines.
    `input`: bytes for its standard input, which is /dev/null if None. `kill_after`: seconds, or a duration
    such as "10s", between SIGTERM and SIGKILL. `check`: whether ending with an error raises ProgramError.
    """

    cwd: str | None = None
    env: Mapping[str, str] | None = None
    stderr: Literal["tail", "merge"] = "tail"
    input: bytes | None = None
    kill_after: float | str = 3.0
    check: bool = True

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind: raises ValueError or TypeError that names the option."""
        if self.stderr not in ("tail", "merge"):
            raise ValueError(f'stderr={self.stderr!r}: write "tail" or "merge"')
        if self.input is not None and not isinstance(self.input, bytes):
            raise TypeError(f"input is a {type(self.input).__name__}: give bytes, for example text.encode()")
        parse_duration(self.kill_after)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended: its exit status, negative for a signal, and all of its output as text."""

    status: int
    output: str
