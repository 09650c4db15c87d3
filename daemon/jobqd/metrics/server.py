"""A small HTTP server for clients on this machine: one thread a request, few at once, none for long."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, cast

from jobqd.settings.local import LocalAddress
from jobqd.socketfile import connect

NAME = "jobqd"
"""What the header Server says."""
CLIENTS_MAX = 8
"""So many are answered at once; whoever comes beyond is hung up on."""
PATIENCE = 15.0
"""Seconds after which a client that has not asked, or not taken its answer, is hung up on."""
_TICK_EVERY = 0.5
_CONNECT_PATIENCE = 1.0
_SOCKET_MODE = 0o660


@dataclass(frozen=True, slots=True)
class Page:
    """An answer; `kind` is its content type."""

    status: int
    kind: str
    body: bytes


Pages = Mapping[str, Callable[[str], Page]]
"""For each path what answers it, given the request's Accept header."""


class LocalServer(ThreadingMixIn, TCPServer):
    """Listens on a loopback address or a Unix socket. Raises OSError if it cannot.

    `on_tick` is called at least twice a second by the thread in `serve`, `on_error` when a request breaks.
    """

    timeout = _TICK_EVERY
    daemon_threads = True
    block_on_close = False
    # Or a port that was served a moment ago would stay in use for a minute (TIME_WAIT of tcp(7)).
    allow_reuse_address = True

    def __init__(
        self, address: LocalAddress, pages: Pages, *, on_tick: Callable[[], None], on_error: Callable[[], None]
    ) -> None:
        self.pages = pages
        self._on_tick = on_tick
        self._on_error = on_error
        self._path = address.path
        self._deadlines: dict[Any, float] = {}
        self._stopped = False
        self.address_family = _family(address)
        # socketserver's stubs know of no address but that of TCP over IPv4.
        place = cast("Any", address.path or (address.host, address.port))
        super().__init__(place, _Handler, bind_and_activate=False)
        try:
            self._bind()
            self.server_activate()
        except BaseException:
            self.socket.close()
            raise

    def _bind(self) -> None:
        if self._path:
            _clear(self._path)
        self.server_bind()
        if self._path:
            # Before it listens: nobody has connected yet. Whoever is to read along joins the daemon's group.
            Path(self._path).chmod(_SOCKET_MODE)

    @property
    def name(self) -> str:
        """The address in one spelling, with the port that the system chose."""
        if self._path:
            return str(LocalAddress(path=self._path))
        host, port = self.socket.getsockname()[:2]
        return str(LocalAddress(host, port))

    def serve(self) -> None:
        """Answer until stopped, then take the socket's file away."""
        while not self._stopped:
            self.handle_request()
            self._hang_up_on_the_slow()
            self._on_tick()
        self.server_close()
        if self._path:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()

    def stop(self) -> None:
        """Let `serve` return; from any thread, before or while it runs."""
        self._stopped = True
        with contextlib.suppress(OSError):
            # Ends the wait for a client.
            self.socket.shutdown(socket.SHUT_RDWR)

    def _hang_up_on_the_slow(self) -> None:
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if now >= deadline:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> Any:
        """Take the next client. Raises OSError, but no more often than the server ticks."""
        try:
            return super().get_request()
        except OSError:
            if not self._stopped:
                # No file descriptor is left, most likely: the client still waits, so the next try would come at once.
                time.sleep(_TICK_EVERY)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless too many are being answered."""
        if len(self._deadlines) >= CLIENTS_MAX:
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + PATIENCE
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Hang up."""
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else is told."""
        self._on_error()


def _family(address: LocalAddress) -> socket.AddressFamily:
    if address.path:
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _clear(path: str) -> None:
    """Take a socket away that a killed daemon left behind. Raises OSError if somebody listens there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError("there is a file of that name which is no socket")
    except FileNotFoundError:
        return
    try:
        connect(Path(path), _CONNECT_PATIENCE).close()
    except ConnectionRefusedError:
        Path(path).unlink()
        return
    raise OSError("another process listens there")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request and hangs up."""

    server_version = NAME
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page of this path."""
        pages = cast("LocalServer", self.server).pages
        answer = pages.get(self.path.partition("?")[0])
        if answer is None:
            page = Page(404, "text/plain; charset=utf-8", f"there are {', '.join(pages)}\n".encode())
        else:
            page = answer(self.headers.get("Accept", ""))
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
