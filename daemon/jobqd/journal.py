"""journald's native protocol: one datagram an entry, a sealed memfd for entries too big for one.

Sources: systemd.io/JOURNAL_NATIVE_PROTOCOL, and systemd.exec(5) for $JOURNAL_STREAM.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
"""Where journald listens."""

FIELD_NAME_LIMIT = 64
"""Longest field name that journald accepts, in bytes."""

_NOT_IN_NAME = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_TOO_BIG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
# What may wait for journald; the default is about 200 KiB, and the kernel cuts this to net.core.wmem_max.
_SEND_BUFFER = 8 * 2**20


def field_name(name: str) -> str:
    """Return a name that journald accepts: A-Z, 0-9 and _, not first a digit or _, at most 64 characters."""
    upper = _NOT_IN_NAME.sub("_", name.upper()).lstrip("_")
    if not upper or upper[0].isdigit():
        upper = f"FIELD_{upper}".rstrip("_")
    return upper[:FIELD_NAME_LIMIT]


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return one entry in wire form; names must be those of `field_name`, and may repeat.

    A lone surrogate, which UTF-8 cannot hold, is written as its escape.
    """
    parts: list[bytes] = []
    for name, value in fields:
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts += (name.encode("ascii"), b"\n", len(data).to_bytes(8, "little"), data, b"\n")
        else:
            parts += (name.encode("ascii"), b"=", data, b"\n")
    return b"".join(parts)


def stderr_is_journal(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Whether `fd` is the stream that $JOURNAL_STREAM ("device:inode") names; false if in doubt."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(fd)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (OSError, ValueError, OverflowError):
        return False


class Journal:
    """Sends entries to journald from any thread, without ever waiting or raising.

    An entry that journald does not take now is dropped and counted; after the next one that it takes, an
    entry of our own says how many were lost. Every datagram names the socket's path, so a restarted journald
    is found again without a connection to renew.
    """

    def __init__(self, path: Path | str = JOURNAL_SOCKET, *, identifier: str = "jobqd") -> None:
        self._path = os.fspath(path)
        self._identifier = identifier
        # Reentrant: a finalizer that the garbage collector runs inside `send` may log.
        self._lock = threading.RLock()
        self._socket: socket.socket | None = _open_socket()
        self._dropped = 0
        self._unreported = 0

    @property
    def dropped(self) -> int:
        """Entries lost so far."""
        return self._dropped

    def send(self, entry: bytes) -> bool:
        """Send one entry of `encode`; false if it was dropped."""
        with self._lock:
            if not self._deliver(entry):
                self._dropped += 1
                self._unreported += 1
                return False
            if self._unreported:
                self._report()
            return True

    def close(self) -> None:
        """Close the socket; what is sent afterwards is dropped."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _deliver(self, entry: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno in _TOO_BIG and self._deliver_memfd(self._socket, entry)
        return True

    def _deliver_memfd(self, sender: socket.socket, entry: bytes) -> bool:
        try:
            memfd = os.memfd_create("jobqd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                _write_all(memfd, entry)
                # journald maps the file, so it takes only one that nobody can change any more.
                fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
                rights = array.array("i", [memfd]).tobytes()
                sender.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, self._path)
            finally:
                os.close(memfd)
        except OSError:
            return False
        return True

    def _report(self) -> None:
        lost = self._unreported
        fields = (
            ("MESSAGE", f"{lost} log entries were dropped: journald did not take them"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", self._identifier),
            ("EVENT", "log.dropped"),
            ("COUNT", str(lost)),
        )
        if self._deliver(encode(fields)):
            self._unreported -= lost


def _open_socket() -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    return sender


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
