"""A handler's return value as the JSON text that is stored."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from jobqd.errors import JobqdError
from jobqd.handlers.explain import cut, shown, type_name
from jobqd.units import format_excess

_DEEPEST = 40
_FORMS = "return texts, numbers, lists, dicts, a dataclass or a pydantic model"
_CONTAINERS = (dict, list, tuple, set, frozenset)
_SCALARS = frozenset({str, int, float, bool, type(None)})


class ResultError(JobqdError, ValueError):
    """What a handler returned cannot be stored as its result; the message names the place and the remedy."""


def encode_result(value: Any, limit: int) -> str:
    """Return a handler's return value as compact JSON of at most `limit` bytes (the setting `max_result`).

    Dates, UUIDs, decimals, paths, enums, dataclasses and pydantic models become their JSON form, tuples and
    sets become lists. Raises ResultError for anything else, NaN and infinities included, or too large.
    """
    if value is None:
        return "null"
    if _holds_iterator(value):
        # It may have no end, and the event loop would wait for it.
        raise ResultError(_complaint(value, lambda child: not _holds_iterator(child)))
    try:
        encoded = to_json(value)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise ResultError(_complaint(value) or f"result is not JSON: {cut(str(error), 300)}") from None
    if len(encoded) > limit:
        size, most = format_excess(len(encoded), limit)
        raise ResultError(
            f"result is {size}, more than max_result ({most}): store it "
            "elsewhere and return a reference to it, such as a path or URL, or raise max_result"
        )
    if (b"NaN" in encoded or b"Infinity" in encoded) and not _is_json(value):
        raise ResultError(_complaint(value) or "result holds NaN or Infinity, which JSON cannot hold")
    return encoded.decode()


def _holds_iterator(value: Any) -> bool:
    """Whether an iterator, such as a generator, is among the values of plain containers."""
    if type(value) in _SCALARS:
        return False
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if not isinstance(each, _CONTAINERS):
            if isinstance(each, Iterator):
                return True
        elif id(each) not in seen:
            seen.add(id(each))  # it may hold itself
            children = each.values() if isinstance(each, dict) else each
            waiting += [child for child in children if type(child) not in _SCALARS]
    return False


def _complaint(value: Any, fits: Callable[[Any], bool] | None = None) -> str:
    """Return what is wrong with the first value that does not fit (is not JSON), and where; empty if nothing is."""
    fits = fits or _is_json
    place = "result"
    for _ in range(_DEEPEST):
        for step, child in _children(value):
            if not fits(child):
                place, value = place + step, child
                break
        else:
            return f"{place} {wrong}" if (wrong := _wrong(value)) else ""
    return f"{cut(place, 300)}… is nested too deep, or holds itself: return values that JSON can hold"


def _is_json(value: Any) -> bool:
    try:
        encoded = to_json(value)
        if b"NaN" in encoded or b"Infinity" in encoded:
            from_json(encoded, allow_inf_nan=False)
    except Exception:  # noqa: BLE001 - a serializer of the application's own may raise anything
        return False
    return True


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((f"[{shown(key, 60)}]", child) for key, child in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ((f"[{index}]", child) for index, child in enumerate(value))
    if isinstance(value, type):
        return iter(())
    if hasattr(type(value), "model_fields") or (dataclasses.is_dataclass(value) and hasattr(value, "__dict__")):
        return ((f".{name}", child) for name, child in vars(value).items())
    return iter(())


def _wrong(value: Any) -> str:
    if isinstance(value, Iterator):
        return f"is {type_name(value)}, which may have no end: return list(...) of it"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, which JSON cannot hold: return None"
    if isinstance(value, str):
        return "" if _is_json(value) else "is a text with lone surrogates: decode it with errors='replace'"
    if isinstance(value, bytes):
        return "is bytes that are not UTF-8: return a text, or store them elsewhere and return a reference"
    if isinstance(value, dict) and (keys := [key for key in value if not _is_json({key: None})]):
        return f"has the key {shown(keys[0])}, which JSON cannot hold: use texts as keys"
    if inspect.iscoroutine(value):
        return "is a coroutine: await it, or make the handler (or the wrapper around it) an async def"
    return "" if _is_json(value) else f"is {type_name(value)}, for which JSON has no form: {_FORMS}"
