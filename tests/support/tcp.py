"""Redis servers on loopback TCP, for what a Unix socket cannot show: Sentinel, Cluster, TLS."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from tests.redis_server import RedisServer


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one 10,000 above it: a cluster's nodes take both."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port < 55_000:
                second.bind(("127.0.0.1", port + 10_000))
                return int(port)


class TcpServer(RedisServer):
    """A server that listens on a port of 127.0.0.1 too, and may ask for a password."""

    def __init__(self, binary: Path, *arguments: str) -> None:
        super().__init__(binary, *arguments)
        self.port = free_port()

    def start(self, *more: str) -> TcpServer:
        super().start("--port", str(self.port), "--bind", "127.0.0.1", *more)
        return self

    def ping(self) -> bool:
        """Whether it answers PING, if only by asking for a password."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False
