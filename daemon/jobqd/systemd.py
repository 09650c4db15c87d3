"""Talking to the service manager: sd_notify and the watchdog.

Source: sd_notify(3) and sd_watchdog_enabled(3) of systemd.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Tells systemd how the daemon is; does nothing without $NOTIFY_SOCKET. Never waits, never raises.

    A state that systemd's socket has no room for is kept and goes out with the next message, so that `ready`
    and `stopping` are not lost. A status is one line: line breaks in it become spaces.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._unsent: list[str] = []

    def ready(self, status: str = "") -> None:
        """Say that starting, or reloading, is done."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(*_status(text), keep=False)

    def stopping(self, status: str = "") -> None:
        """Say that the daemon begins to stop."""
        self._send("STOPPING=1", *_status(status))

    def reloading(self) -> None:
        """Say that the daemon begins to reload, and when, as Type=notify-reload asks; `ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def watchdog(self) -> None:
        """Vouch that the daemon does its work."""
        self._send("WATCHDOG=1", keep=False)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for `seconds` from now before the current start, stop or run time-out ends."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(1, round(seconds * 1_000_000))}")

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        self._address = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str, keep: bool = True) -> None:
        if self._address is None or not lines:
            return
        message = "\n".join((*self._unsent, *lines))
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(message.encode("utf-8", "backslashreplace"), self._address)
        except BlockingIOError:
            if keep:
                self._unsent = [*self._unsent, *lines][-_KEPT_LINES:]
        except OSError:
            return
        else:
            self._unsent = []


_KEPT_LINES = 16
# More than a terminal's width serves nobody, and an error text may be a megabyte.
_STATUS_LIMIT = 1000


def watchdog_timeout(environ: Mapping[str, str]) -> float | None:
    """Return the seconds without a ping after which systemd ends this process; None if it does not watch it.

    $WATCHDOG_PID, where set, must name this process: the variables are inherited by children they are not
    for.
    """
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        process = int(environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    if microseconds <= 0 or process != os.getpid():
        return None
    return microseconds / 1_000_000


def _address(path: str) -> str | None:
    """Return the socket address ("@" begins an abstract one), None if it is of no kind we speak."""
    if path.startswith("@"):
        return "\0" + path[1:]
    return path if path.startswith("/") else None


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.splitlines())[:_STATUS_LIMIT]}",) if text else ()
