"""A payload as the JSON text that is stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jobqd.errors import PayloadError
from jobqd.texts import class_name, with_article
from jobqd.units import format_excess, shorten

_DEEPEST = 40


def encode_payload(payload: Any, limit: int) -> str:
    """Return a mapping as compact JSON of at most `limit` bytes (the setting `max_payload`).

    Raises PayloadError that names the place of the first value that is not JSON.
    """
    if not isinstance(payload, Mapping):
        raise PayloadError(f"payload: {shorten(payload)} is not a mapping of argument names to values")
    for name in payload:
        if not isinstance(name, str):
            raise PayloadError(f"payload: the key {shorten(name)} is not a text, so it cannot name an argument")
    try:
        text = json.dumps(dict(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(_complaint(payload) or f"payload is not JSON: {error}") from None
    if size > limit:
        told, most = format_excess(size, limit)
        raise PayloadError(
            f"payload is {told}, more than max_payload ({most}): store the data "
            "elsewhere and pass a reference to it, such as a path or URL, or raise max_payload"
        )
    return text


def _complaint(payload: Mapping[str, Any]) -> str:
    """Return what is wrong with the first value that is not JSON, and where it is; empty if nothing is."""
    place, value = "payload", payload
    for _ in range(_DEEPEST):
        for step, child in _children(value):
            if not _is_json(child):
                place, value = place + step, child
                break
        else:
            return "" if value is payload else f"{place}: {shorten(value)} {_remedy(value)}"
    return f"{place[:300]}… is nested too deep, or holds itself"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{shorten(name, 40)}]", child) for name, child in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _remedy(value: Any) -> str:
    if isinstance(value, float):
        return "is not in JSON, which has no NaN and no infinity: pass null or a text"
    if isinstance(value, str):
        return "cannot be written as UTF-8: use valid characters"
    if isinstance(value, Mapping):
        return "has a key that is not JSON: use texts as keys"
    return (
        f"is {with_article(class_name(value))}, which JSON cannot hold: pass a text or a number, "
        "or enqueue handler.args(...), which converts by the handler's type hints"
    )
