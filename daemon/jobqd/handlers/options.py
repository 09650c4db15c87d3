"""What `@handlers.job` may be told about a type, checked where it is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields

from jobqd.errors import ConfigError
from jobqd.handlers.explain import cut, shown
from jobqd.keys import TYPE_MAX, is_type
from jobqd.units import parse_duration


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """The decorator's share of a job's limits; None leaves the decision to the settings. Times in seconds."""

    timeout: float | None = None
    max_attempts: int | None = None
    concurrency: int | None = None
    retry_delay: float | None = None
    retry_max_delay: float | None = None
    job_ttl: float | None = None
    drain_timeout: float | None = None
    stall_timeout: float | None = None
    process: bool = False
    """Whether each run has a process of its own."""


class OptionReader:
    """Reads the options of one handler; raises ConfigError naming handler, option, value and remedy."""

    __slots__ = ("_type",)

    def __init__(self, job_type: str) -> None:
        self._type = job_type

    def seconds(self, option: str, value: float | str | None, *, zero: bool = False) -> float | None:
        """Return a duration in seconds; 0 only where `zero` allows it."""
        if value is None:
            return None
        try:
            seconds = parse_duration(value)
        except ValueError:
            why = "is not a duration: write seconds (90) or a text such as '1h30m'"
            raise self._error(option, value, why) from None
        if not seconds and not zero:
            raise self._error(option, value, "must be more than 0: leave it out to use the setting")
        return seconds

    def count(self, option: str, value: int | None) -> int | None:
        """Return a whole number, 1 or more."""
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise self._error(option, value, "must be a whole number, 1 or more")

    def switch(self, option: str, value: bool) -> bool:
        """Return whether something is wanted."""
        if isinstance(value, bool):
            return value
        raise self._error(option, value, "must be True or False")

    def refuse(self, others: Iterable[str]) -> None:
        """Raise ConfigError for the first of the options that there are not."""
        known = [field.name for field in fields(HandlerOptions)]
        for option in others:
            near = difflib.get_close_matches(option.lower(), known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"handler {shown(self._type)}: there is no option {cut(option, 60)}; {remedy}")

    def _error(self, option: str, value: object, why: str) -> ConfigError:
        return ConfigError(f"handler {shown(self._type)}: {option}={shown(value)} {why}")


def check_type(job_type: object) -> str:
    """Return a job type that may stand in keys and log lines; raises ConfigError otherwise."""
    if not isinstance(job_type, str):
        raise ConfigError(f'{shown(job_type)} is not a job type: write a text: @handlers.job("video_render")')
    if not is_type(job_type):
        raise ConfigError(f"{shown(job_type)} is not a job type: use 1 to {TYPE_MAX} printable characters, no spaces")
    return job_type
