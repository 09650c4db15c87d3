from __future__ import annotations

from typing import Any

import pytest

from jobqd.texts import CLASS_NAME_LIMIT, class_name, repr_of, shorten_text, text_of, with_article


class Evil(BaseException):
    """Whatever is asked of it raises itself, and it is none that `except Exception` catches."""

    def __str__(self) -> str:
        raise self

    __repr__ = __str__


class Sly(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise Evil

    __getitem__ = __len__  # type: ignore[assignment]


class Nameless(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise Evil


def test_there_is_always_a_text() -> None:
    assert text_of(ValueError("no film")) == "no film"
    assert repr_of(ValueError("no film")) == "ValueError('no film')"
    assert text_of(Evil()) == "(its message could not be made)"
    assert repr_of(Evil()) == "<Evil whose repr raises Evil>"
    assert repr_of(10**5000) == "<int whose repr raises ValueError>"


@pytest.mark.parametrize("make", [text_of, repr_of])
def test_a_text_is_a_plain_one(make: Any) -> None:
    class Says:
        def __str__(self) -> str:
            return Sly("text")

        __repr__ = __str__

    made = make(Says())
    assert type(made) is str
    assert shorten_text(made, 3) == "te…"


def test_the_name_of_a_class_is_short_and_costs_nothing() -> None:
    assert class_name(OSError()) == "OSError"
    assert len(class_name(type("X" * 10**6, (), {})())) == CLASS_NAME_LIMIT
    assert class_name(Nameless("Film", (), {})()) == "Film"


@pytest.mark.parametrize(("name", "told"), [("object", "an object"), ("socket", "a socket"), ("UUID", "a UUID")])
def test_a_name_has_its_article(name: str, told: str) -> None:
    assert with_article(name) == told
