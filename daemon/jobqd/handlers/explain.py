"""Sentences about values that do not fit: short whatever the value is, and safe to store and to print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from jobqd.texts import with_article

VALUE_LIMIT = 100
"""Characters of a value that are shown in a message."""
MESSAGE_LIMIT = 900
"""Characters of a whole message; job fields and log lines carry it."""
_PROBLEMS_SHOWN = 3

_EXPECTED = re.compile(r"Input should be (an? [^,]+)")
_PLAIN = {
    "int_parsing": "is not a valid integer",
    "int_type": "is not a valid integer",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "has too many digits for an integer",
    "float_parsing": "is not a valid number",
    "float_type": "is not a valid number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not a text",
    "string_unicode": "is not valid UTF-8",
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "list_type": "is not a list",
    "dict_type": "is not an object",
    "model_type": "is not an object",
    "model_attributes_type": "is not an object",
    "dataclass_type": "is not an object",
}


def shown(value: object, limit: int = VALUE_LIMIT) -> str:
    """Return a value as one line of JSON, or its repr, cut to `limit` characters; never raises."""
    if isinstance(value, str | bytes):
        value = value[: limit + 1]
    try:
        text = json.dumps(value, ensure_ascii=False) if _is_plain(value) else repr(value)
    except Exception:  # noqa: BLE001 - the repr belongs to the application
        text = f"<{type(value).__name__}>"
    return cut(text, limit)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def cut(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return at most `limit` characters on one line, without control characters or lone surrogates."""
    text = text[: limit + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def type_name(value: object) -> str:
    """Return the name of a value's type with its article: "a socket", "an array"."""
    return with_article(cut(type(value).__name__, VALUE_LIMIT))


def problems(error: ValidationError) -> list[str]:
    """Return one sentence for each of the first problems of a validation, and one that counts the rest."""
    entries = error.errors(include_url=False, include_context=False)
    sentences = [_problem(entry["loc"], entry) for entry in entries[:_PROBLEMS_SHOWN]]
    if len(entries) > _PROBLEMS_SHOWN:
        sentences.append(f"and {len(entries) - _PROBLEMS_SHOWN} more")
    return sentences


def _problem(place: tuple[str | int, ...], entry: Any) -> str:
    kind = entry["type"]
    if not place:
        return f"{shown(entry['input'])} {_complaint(kind, entry['msg'])}"
    name = f"argument {_place(place)}"
    if kind in ("missing", "extra_forbidden"):
        return f"{name} {_PLAIN[kind]}"
    return f"{name}: {shown(entry['input'])} {_complaint(kind, entry['msg'])}"


def _place(place: tuple[str | int, ...]) -> str:
    steps = "".join(f"[{shown(step, 60)}]" for step in place[1:6])
    return shown(str(place[0]), 60) + steps


def _complaint(kind: str, message: str) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if match := _EXPECTED.match(message):
        return f"is not {match.group(1)}"
    for prefix in ("Input should ", "String should ", "Value error, ", "Assertion failed, "):
        if message.startswith(prefix):
            words = message.removeprefix(prefix)
            return f"should {words}" if prefix.endswith("should ") else words
    return f"does not fit: {message}"


def join(subject: str, sentences: Iterable[str]) -> str:
    """Return "subject: sentence; sentence", bounded in length."""
    return cut(f"{subject}: {'; '.join(sentences)}")
