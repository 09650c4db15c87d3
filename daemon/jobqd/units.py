"""Durations and sizes as people write them: "90s", "1h30m", "250ms", "1MiB"."""

from __future__ import annotations

import math
import re

from jobqd.texts import repr_of, shorten_text

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def parse_duration(value: float | str) -> float:
    """Return seconds for a number of seconds or a text such as "90s", "1h30m", "250ms" or "2d".

    Raises ValueError for anything else, negative and not finite numbers included.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(  # noqa: TRY004 - callers, pydantic among them, expect one class
            f"{shorten(value)} is not a duration: write seconds (90) or a text such as '90s' or '1h30m'"
        )
    if isinstance(value, str):
        seconds = _duration_text(value)
    else:
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{shorten(value)} is not a duration: it must be a finite number of seconds, 0 or more")
    return seconds


def _duration_text(text: str) -> float:
    stripped = text.strip()
    try:
        return float(stripped)
    except ValueError:
        pass
    parts = list(_DURATION_PART.finditer(stripped))
    if not parts or "".join(part.group(0) for part in parts).replace(" ", "") != stripped.replace(" ", ""):
        raise ValueError(
            f"{shorten(text)} is not a duration: write seconds (90), or numbers with ms, s, m, h, d or w, as in '1h30m'"
        )
    return sum(float(part.group(1)) * _SECONDS[part.group(2).lower()] for part in parts)


def parse_size(value: int | str) -> int:
    """Return bytes for a number of bytes or a text such as "64KiB", "1MiB" or "10 MB".

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = math.inf
    if match is not None and match.group(2).lower() in _BYTES:
        size = float(match.group(1)) * _BYTES[match.group(2).lower()]
    if not math.isfinite(size):
        raise ValueError(f"{shorten(value)} is not a size: write bytes (1048576) or a text such as '1MiB' or '500kB'")
    return int(size)


def format_duration(seconds: float) -> str:
    """Return the shortest text that a person reads as this duration: 0.25 → "250ms", 5400 → "1h30m"."""
    if seconds < 1:
        return f"{_three_digits(seconds * 1000)}ms" if seconds else "0s"
    if seconds < 60:
        return f"{seconds:.3g}s"
    parts, rest = [], round(seconds)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def format_size(size: int) -> str:
    """Return a size a person reads at a glance: 1048576 → "1MiB", 1500 → "1.46KiB"."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{_three_digits(amount)}{unit}"


def format_excess(size: int, limit: int) -> tuple[str, str]:
    """Return a size and the smaller limit as two texts that differ: in bytes where a glance shows them alike."""
    texts = format_size(size), format_size(limit)
    return texts if texts[0] != texts[1] else (f"{size} bytes", f"{limit}")


def shorten(value: object, limit: int = 100) -> str:
    """Return the repr of any value, cut to `limit` characters, for a message: a value can be a whole film."""
    return shorten_text(repr_of(value), limit)


def _three_digits(amount: float) -> str:
    # ":.3g" turns 1000 into "1e+03".
    return f"{amount:.3g}" if amount < 999.5 else f"{amount:.0f}"
