"""What a handler returns is stored as JSON, or refused with the place that is not JSON."""

from __future__ import annotations

import enum
import itertools
import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from jobqd.handlers import ResultError, encode_result

LIMIT = 1024
FORM = "for which JSON has no form: return texts, numbers, lists, dicts, a dataclass or a pydantic model"


class Film(BaseModel):
    title: str
    extra: Any = None


@dataclass
class Size:
    width: Any


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("é", '"é"'),
        ({"a": [1, 2.5, (3,)]}, '{"a":[1,2.5,[3]]}'),
        ("NaN", '"NaN"'),
        ({"Infinity": "-Infinity"}, '{"Infinity":"-Infinity"}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        (UUID(int=5), f'"{UUID(int=5)}"'),
        (Decimal("1.10"), '"1.10"'),
        (timedelta(seconds=90), '"PT1M30S"'),
        (Path("out/a.mp4"), '"out/a.mp4"'),
        (Colour.RED, '"red"'),
        (Film(title="Up"), '{"title":"Up","extra":null}'),
        (Size(3), '{"width":3}'),
        ({1}, "[1]"),
        (b"text", '"text"'),
        ({1: "a"}, '{"1":"a"}'),
    ],
)
def test_values_with_a_json_form(value: Any, text: str) -> None:
    assert encode_result(value, LIMIT) == text


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "result is an object, " + FORM),
        ({"a": {"b": float("nan")}}, 'result["a"]["b"] is nan, which JSON cannot hold: return None'),
        ([1, float("inf")], "result[1] is inf, which JSON cannot hold: return None"),
        (Film(title="x", extra=[object()]), "result.extra[0] is an object, " + FORM),
        (Size(object()), "result.width is an object, " + FORM),
        ({"a": b"\xff"}, 'result["a"] is bytes that are not UTF-8: '),
        (["\udce9"], "result[0] is a text with lone surrogates: "),
        (
            {"a": {"\udce9": 1}},
            'result["a"] has the key "\\udce9", which JSON cannot hold: use texts as keys',
        ),
        (nested(100_000), "nested too deep"),
        (circle(), "nested too deep, or holds itself"),
        ({"x" * 10_000: object()}, "is an object"),
    ],
)
def test_values_without_a_json_form(value: Any, message: str) -> None:
    with pytest.raises(ResultError) as caught:
        encode_result(value, LIMIT)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_socket_is_named_with_its_place() -> None:
    with socket.socket() as opened, pytest.raises(ResultError) as caught:
        encode_result({"frames": [1, 2, 3, opened]}, LIMIT)
    assert str(caught.value) == 'result["frames"][3] is a socket, ' + FORM


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda one: one, "result"),
        (lambda one: {"a": [1, {"rows": one}]}, 'result["a"][1]["rows"]'),
        (lambda one: (1, "two", one), "result[2]"),
        (lambda one: [circle(), one], "result[1]"),
    ],
)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: (number for number in itertools.count()), "a generator"),
        (itertools.count, "a count"),
        (lambda: map(str, [1]), "a map"),
    ],
)
def test_an_iterator_is_refused_before_it_is_run(wrap: Any, place: str, make: Any, name: str) -> None:
    with pytest.raises(ResultError) as caught:
        encode_result(wrap(make()), LIMIT)
    assert str(caught.value) == f"{place} is {name}, which may have no end: return list(...) of it"


def test_a_coroutine_is_explained() -> None:
    async def forgotten() -> None: ...

    coroutine = forgotten()
    with pytest.raises(ResultError, match="result is a coroutine: await it"):
        encode_result(coroutine, LIMIT)
    coroutine.close()


def test_the_limit_is_in_bytes() -> None:
    assert encode_result("é" * 511, LIMIT) == '"' + "é" * 511 + '"'
    with pytest.raises(ResultError, match=r"result is 1026 bytes, more than max_result \(1024\): store it elsewhere"):
        encode_result("é" * 512, LIMIT)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_any_plain_value_is_json_that_reads_back_or_is_refused(value: Any) -> None:
    try:
        text = encode_result(value, 10**6)
    except ResultError:
        with pytest.raises((ValueError, UnicodeEncodeError)):
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    else:
        assert json.loads(text, parse_constant=pytest.fail) == value
