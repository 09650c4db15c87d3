"""Texts of what is not ours: an exception or a value gives one whatever its own code does."""

from __future__ import annotations

CLASS_NAME_LIMIT = 200
# Past a metaclass of the application's own, which may have anything for a name.
_NAME = type.__dict__["__name__"].__get__


def shorten_text(text: str, limit: int) -> str:
    """Return a text, cut where it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def class_name(value: object) -> str:
    """Return the name of a value's class, cut to a length that a line can bear."""
    return shorten_text(_NAME(type(value)), CLASS_NAME_LIMIT)


def with_article(name: str) -> str:
    """Return a name with its article: "a socket", "an array"."""
    # Of names with a u most are said as "a UUID" and "a User" are.
    return f"{'an' if name[:1].lower() in tuple('aeio') else 'a'} {name}"


def text_of(value: object) -> str:
    """Return `str(value)`, or a text that says that there is none; never raises."""
    try:
        return "".join((str(value),))  # a plain one: a subclass of str may do anything when it is measured or cut
    except BaseException:  # noqa: BLE001 - a SystemExit of a __str__ must end neither a run nor the daemon
        return "(its message could not be made)"


def repr_of(value: object) -> str:
    """Return `repr(value)`, or a text that says that it raises; never raises."""
    try:
        return "".join((repr(value),))
    except BaseException as error:  # noqa: BLE001 - as above; 10**5000 alone raises ValueError
        return f"<{class_name(value)} whose repr raises {class_name(error)}>"
