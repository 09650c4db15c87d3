"""One JSON object a line, for programs that collect logs."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import Any

from jobqd.logs.record import Record
from jobqd.logs.text import VALUE_LIMIT, block, cut
from jobqd.texts import repr_of

_OWN = frozenset({"timestamp", "level", "event", "exception"})
_DEEPEST = 16
# JSON may hold these bare, but a terminal that shows the line acts on them, and some readers split there.
_BARE = re.compile("[\x7f-\x9f\u2028\u2029]")


class JsonFormat:
    """Renders `{"timestamp": "2025-11-24T12:03:44.120Z", "level": "info", "event": "job.completed", ...}`.

    A value that is not JSON is its repr; one longer than 64 Ki characters is a text with its middle left out.
    A field that has the name of one of ours gets a trailing `_`.
    """

    def render(self, record: Record) -> bytes:
        """Return the record's line, ended by a line break."""
        line = self._quick(record)
        if line is None:
            line = json.dumps(_safe_object(_object(record)), ensure_ascii=False, separators=(",", ":"))
        line = _BARE.sub(lambda match: f"\\u{ord(match.group()):04x}", line)
        return line.encode("utf-8", "backslashreplace") + b"\n"

    def _quick(self, record: Record) -> str | None:
        """Return the line of a record whose values are all plain and short, else None."""
        try:
            line = json.dumps(
                _object(record), ensure_ascii=False, allow_nan=False, default=repr_of, separators=(",", ":")
            )
            line.encode()
        except (TypeError, ValueError, RecursionError, RuntimeError):
            return None
        return line if len(line) <= VALUE_LIMIT else None


def _object(record: Record) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
    timestamp = moment.removesuffix("+00:00") + "Z"
    result: dict[str, Any] = {"timestamp": timestamp, "level": record.level_name, "event": record.event}
    for name, value in record.fields.items():
        result[f"{name}_" if name in _OWN else name] = value
    if record.exception:
        result["exception"] = record.exception
    return result


def _safe_object(whole: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, value in whole.items():
        plain = _plain(value)
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        result[_text(name)] = plain if len(text) <= VALUE_LIMIT else cut(text)
    return result


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or type(value) is bool or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is int and value.bit_length() <= 64:
        return value
    if type(value) is str:
        return _text(value)
    if depth < _DEEPEST and type(value) is dict:
        return {_text(key if type(key) is str else repr_of(key)): _plain(item, depth + 1)
                for key, item in list(value.items())}  # fmt: skip
    if depth < _DEEPEST and type(value) in (list, tuple):
        return [_plain(item, depth + 1) for item in list(value)]
    return _text(repr_of(value))


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold and that is not too long; JSON itself escapes control characters."""
    short = cut(text)
    try:
        short.encode()
    except UnicodeEncodeError:
        return block(short)
    return short
