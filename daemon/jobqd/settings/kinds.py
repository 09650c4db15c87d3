"""The kinds of value a setting can have: each reads what a person wrote and says what it expected instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler, SecretStr
from pydantic_core import CoreSchema, core_schema

from jobqd.settings.urls import DEFAULT_URL, parse_url, safe_url
from jobqd.units import format_duration, format_size, parse_duration, parse_size, shorten

HIDDEN = "(hidden)"
"""What is shown in place of a secret."""
N = TypeVar("N", bound=float)

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Kind:
    """One kind of value. As metadata of a field it is also what pydantic validates the field with."""

    def parse(self, value: Any) -> Any:
        """Return the value for one from TOML or a text. Raises ValueError that says what is wrong."""
        raise NotImplementedError

    def expected(self) -> str:
        """Return what to write, to follow the word "write"."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """Return a parsed value as a person would write it."""
        return str(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)


def _reads_as(text: str, seconds: float) -> bool:
    try:
        return parse_duration(text) == seconds
    except ValueError:
        return False  # "1e-05ms"


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """Seconds, between two bounds."""

    low: float
    high: float
    example: str = "90s"

    def parse(self, value: Any) -> float:
        """Return seconds for a number or a text such as "1h30m"."""
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise ValueError("it is not a duration") from None
        _bound(seconds, self.low, self.high, self.show)
        return seconds

    def expected(self) -> str:
        """Return what to write."""
        bounds = f"from {self.show(self.low)} to {self.show(self.high)}"
        return f'a duration {bounds}, in seconds or with ms, s, m, h or d, such as "{self.example}"'

    def show(self, value: float) -> str:
        """Return a duration that reads back as exactly this value."""
        return next(text for text in (format_duration(value), f"{value:.15g}s", repr(value)) if _reads_as(text, value))


@dataclass(frozen=True, slots=True)
class Size(Kind):
    """Bytes, between two bounds."""

    low: int
    high: int

    def parse(self, value: Any) -> int:
        """Return bytes for a number or a text such as "1MiB"."""
        try:
            size = parse_size(value)
        except ValueError:
            raise ValueError("it is not a size") from None
        _bound(size, self.low, self.high, self.show)
        return size

    def expected(self) -> str:
        """Return what to write."""
        return f'a size from {self.show(self.low)} to {self.show(self.high)}, in bytes or such as "512KiB"'

    def show(self, value: int) -> str:
        """Return a size that reads back as exactly this value."""
        text = format_size(value)
        return text if parse_size(text) == value else str(value)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number, between two bounds."""

    low: int
    high: int

    def parse(self, value: Any) -> int:
        """Return an integer for an integer or a text of digits."""
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("it is not a whole number")  # noqa: TRY004 - pydantic reports ValueError only
        _bound(value, self.low, self.high, str)
        return value

    def expected(self) -> str:
        """Return what to write."""
        return f"a whole number from {self.low} to {self.high}"


class Switch(Kind):
    """True or false."""

    def parse(self, value: Any) -> bool:
        """Return a truth value for one, or for a word such as "yes"."""
        word = str(value).strip().lower() if isinstance(value, bool | str) else ""
        if word not in _TRUE | _FALSE:
            raise ValueError("it is neither true nor false")
        return word in _TRUE

    def expected(self) -> str:
        """Return what to write."""
        return "true or false"

    def show(self, value: bool) -> str:
        """Return the word that TOML uses."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One word of a few."""

    words: tuple[str, ...]

    def parse(self, value: Any) -> str:
        """Return the word, in lower case."""
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in self.words:
            raise ValueError("there is no such choice")
        return word

    def expected(self) -> str:
        """Return what to write."""
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """A text of which every character, and the length, is allowed by a pattern."""

    pattern: str
    meaning: str

    def parse(self, value: Any) -> str:
        """Return the text."""
        text = _text(value)
        if not re.fullmatch(self.pattern, text):
            raise ValueError("it is empty, too long, or holds a character that is not allowed")
        return text

    def expected(self) -> str:
        """Return what to write."""
        return self.meaning


@dataclass(frozen=True, slots=True)
class FilePath(Kind):
    """The path of a file or directory."""

    meaning: str

    def parse(self, value: Any) -> Path:
        """Return the path as it was written; whether it is there is another question."""
        text = str(value) if isinstance(value, Path) else _text(value)
        if not text or "\0" in text:
            raise ValueError("it is not a path")
        return Path(text)

    def expected(self) -> str:
        """Return what to write."""
        return self.meaning


class HandlerNames(Kind):
    """Where the handlers are: `package.module:attribute`, several joined by commas."""

    def parse(self, value: Any) -> tuple[str, ...]:
        """Return the names in order, for a text or a list of texts."""
        parts = value if isinstance(value, list | tuple) else _text(value).split(",")
        names = tuple(_text(part).strip() for part in parts)
        names = tuple(name for name in names if name)
        for name in names:
            module, _, attribute = name.partition(":")
            if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
                raise ValueError(f"{shorten(safe_url(name))} is not of the form package.module:attribute")
        if not names:
            raise ValueError("it names no handlers")
        return names

    def expected(self) -> str:
        """Return what to write."""
        return 'a module and the name of its Handlers, such as "shop.jobs:handlers"; join several with commas'

    def show(self, value: tuple[str, ...]) -> str:
        """Return the names joined by commas."""
        return ",".join(value)


class Url(Kind):
    """The address of Redis. Only kept, and so only shown, without its credentials; those for Sentinels are masked."""

    def parse(self, value: Any) -> str:
        """Return the URL without its credentials, in one spelling."""
        return str(parse_url(_text(value)))

    def show(self, value: Any) -> str:
        """Return the URL, secrets among its options masked."""
        return safe_url(str(value))

    def expected(self) -> str:
        """Return what to write."""
        return f"a URL such as {DEFAULT_URL} or unix:///run/redis/redis.sock?db=0"


class Secret(Kind):
    """A text that is never shown."""

    def parse(self, value: Any) -> SecretStr:
        """Return the text, wrapped so that printing it shows stars."""
        secret = value if isinstance(value, SecretStr) else SecretStr(_text(value))
        if not secret.get_secret_value():
            raise ValueError("it is empty")
        return secret

    def expected(self) -> str:
        """Return what to write."""
        return "the password as text"

    def show(self, value: SecretStr) -> str:
        """Return a mask."""
        return HIDDEN


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it is not a text: put it in quotes")  # noqa: TRY004 - pydantic reports ValueError only
    return value


def _bound(value: N, low: N, high: N, show: Callable[[N], str]) -> None:
    if value < low:
        raise ValueError(f"it is below the least allowed, {show(low)}")
    if value > high:
        raise ValueError(f"it is above the most allowed, {show(high)}")
