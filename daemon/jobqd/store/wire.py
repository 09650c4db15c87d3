"""Sending commands over one connection of redis-py, and reading what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis.asyncio.connection as asynchronous
import redis.connection as synchronous

from jobqd.store.resolve import Node


@contextmanager
def resets_named() -> Iterator[None]:
    """Turn what uvloop raises on writing to a connection that was reset meanwhile into what asyncio raises."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionResetError(str(error)) from None


async def send(connection: asynchronous.AbstractConnection, packed: Sequence[bytes]) -> None:
    """Send commands that are packed already. Raises one of `faults.RAISED`."""
    with resets_named():
        await connection.send_packed_command(packed, check_health=False)


async def ask(connection: asynchronous.AbstractConnection, command: tuple[str, ...]) -> Any:
    """Send one command and return its reply. Raises one of `faults.RAISED`."""
    await send(connection, connection.pack_command(*command))
    return await connection.read_response()


def ask_sync(connection: synchronous.AbstractConnection, command: tuple[str, ...]) -> Any:
    """Do the same from a thread."""
    connection.send_command(*command, check_health=False)
    return connection.read_response()


def peer(connection: asynchronous.AbstractConnection) -> str:
    """Return the address of the server at the other end."""
    host, port = getattr(connection, "host", None), getattr(connection, "port", 0)
    return str(getattr(connection, "path", "")) if host is None else str(Node(host, port))
