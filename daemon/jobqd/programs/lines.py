"""A program's output as lines, and the last of them, in bounded memory."""

from __future__ import annotations

from collections import deque

MAX_LINE = 64 * 1024
"""Bytes after which a line without an end is handed over in pieces."""
_TAIL_LINES, _TAIL_CHARACTERS = 50, 16 * 1024


class LineSplitter:
    """Cuts a stream of bytes into lines: they end with LF, CR (progress meters) or CRLF."""

    __slots__ = ("_after_cr", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that these bytes complete, without their ends; a line too long comes in pieces."""
        if not data:
            return []
        fresh = data[1:] if self._after_cr and data.startswith(b"\n") else data
        self._after_cr = data.endswith(b"\r")
        # For bytes, splitlines knows exactly the three ends wanted here.
        parts = (self._rest + fresh).splitlines(keepends=True)
        unfinished = parts.pop() if parts and not parts[-1].endswith((b"\n", b"\r")) else b""
        lines = [_text(piece) for part in parts for piece in _cut(part.rstrip(b"\r\n"))]
        *complete, self._rest = _cut(unfinished)
        return lines + [_text(piece) for piece in complete]

    def finish(self) -> list[str]:
        """Return what is left once the stream has ended: a last line without an end, or nothing."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _cut(line: bytes) -> list[bytes]:
    """Cut a line into pieces of at most MAX_LINE bytes, not inside a character."""
    pieces = []
    while len(line) > MAX_LINE:
        at = MAX_LINE
        while at > MAX_LINE - 3 and line[at] & 0xC0 == 0x80:
            at -= 1
        pieces.append(line[:at])
        line = line[at:]
    return [*pieces, line]


class Tail:
    """The last lines of a stream, in bounded memory."""

    __slots__ = ("_lines", "_size")

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0

    def add(self, lines: list[str]) -> None:
        """Append lines; the oldest go."""
        for line in lines[-_TAIL_LINES:]:
            kept = line[-_TAIL_CHARACTERS:]
            self._lines.append(kept)
            self._size += len(kept)
            while len(self._lines) > _TAIL_LINES or self._size > _TAIL_CHARACTERS:
                self._size -= len(self._lines.popleft())

    @property
    def lines(self) -> list[str]:
        """The lines kept, oldest first."""
        return list(self._lines)
