"""Values as text that is safe to show: bounded, without control characters, whatever the value does."""

from __future__ import annotations

import re
from typing import Any

from jobqd.texts import repr_of

VALUE_LIMIT = 64 * 1024
"""Longest shown value of one field, in characters."""

# C0, DEL, C1 (a terminal may take U+009B as an escape), line separators, bidirectional overrides (they
# reorder what a person reads), lone surrogates (UTF-8 cannot hold them).
_REST = r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_IN_LINE = re.compile(rf"[\x00-\x1f{_REST}]")
_UNSAFE_IN_BLOCK = re.compile(rf"[\x00-\x08\x0b-\x1f{_REST}]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def one_line(text: str) -> str:
    """Return `text` with everything that could break a line or steer a terminal escaped."""
    return _UNSAFE_IN_LINE.sub(_escape, text)


def block(text: str) -> str:
    """Return `text` with its line breaks and tabs kept, and all else that `one_line` escapes escaped."""
    return _UNSAFE_IN_BLOCK.sub(_escape, text)


def cut(text: str, limit: int = VALUE_LIMIT) -> str:
    """Return `text`, its middle left out if it is longer than `limit` characters: both ends tell the most."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]} …[{len(text) - head - tail} characters left out]… {text[-tail:]}"


def shown(value: Any, limit: int = VALUE_LIMIT) -> str:
    """Return a value as text of about `limit` characters at most: a text as it is, other types by repr."""
    return cut(value if type(value) is str else repr_of(value), limit)
