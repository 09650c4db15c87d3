"""What goes between the daemon and a child: JSON objects, each behind its length in four bytes."""

from __future__ import annotations

import json
import struct
from typing import Any, NoReturn

HEADER = struct.Struct("!I")
"""The length of the JSON text that follows, in bytes, in network order."""


class BrokenFrame(Exception):  # noqa: N818 - says what happened
    """What came is not a frame of ours; the message says why."""


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as a frame. Raises ValueError for one that is not JSON, or longer than 4 GiB."""
    # ASCII, because a job's fields may hold bytes that are not UTF-8, as lone surrogates.
    text = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    try:
        return HEADER.pack(len(text)) + text
    except struct.error:
        raise ValueError(f"a message of {len(text)} bytes is too long") from None


def length(header: bytes, limit: int) -> int:
    """Return how many bytes follow a header. Raises BrokenFrame if they are more than `limit`."""
    (size,) = HEADER.unpack(header)
    if size > limit:
        raise BrokenFrame(f"it is {size} bytes long, more than the {limit} allowed")
    return int(size)


def decode(text: bytes) -> dict[str, Any]:
    """Return the message of a frame. Raises BrokenFrame for anything but a JSON object of finite numbers."""
    try:
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenFrame(f"it is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BrokenFrame("it is not a JSON object")
    return message


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
