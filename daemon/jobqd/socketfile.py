"""Unix sockets by paths of any length, and who is at the other end.

The address of a Unix socket holds 107 bytes (unix(7)); a longer path is reached through its directory's descriptor.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_ADDRESS_MAX = 107
_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """The process at the other end of a connection: of a server, the one that listens."""

    pid: int
    uid: int


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, for this user alone; what stood there is replaced. Raises OSError."""
    with suppress(FileNotFoundError):
        path.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            server.bind(address)
        path.chmod(0o600)
        server.listen()
    except BaseException:
        server.close()
        raise
    server.setblocking(False)
    return server


def connect(path: Path, timeout: float) -> socket.socket:
    """Return a connection to whoever listens at `path`; each call on it takes `timeout` seconds at most.

    Raises OSError.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        with _address(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def peer(connection: socket.socket) -> Peer:
    """Return who is at the other end (SO_PEERCRED, unix(7))."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    text = str(path)
    if len(os.fsencode(text)) <= _ADDRESS_MAX:
        yield text
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
