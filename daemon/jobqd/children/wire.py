"""A child's end of its connection to the daemon: plain and blocking, so that what was sent is sent before a crash."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from jobqd.children.frames import HEADER, decode, encode, length

_NO_LIMIT = 2**32
_CHUNK = 2**20


class Wire:
    """Sends from any thread; one thread receives."""

    def __init__(self, descriptor: int) -> None:
        # What the application starts must not keep the connection open.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._sending = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Hand a message to the kernel. Raises OSError once the daemon is gone, ValueError for what is not JSON."""
        frame = encode(message)
        with self._sending:
            self._socket.sendall(frame)

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None once the daemon is gone."""
        header = self._read(HEADER.size)
        text = self._read(length(header, _NO_LIMIT)) if header else None
        return decode(text) if text else None

    def _read(self, size: int) -> bytes | None:
        parts: list[bytes] = []
        while size:
            try:
                part = self._socket.recv(min(size, _CHUNK))
            except OSError:
                return None
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
