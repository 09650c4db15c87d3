"""Requests as they are on the wire, and rules for what happens to some of them."""

from __future__ import annotations

from dataclasses import dataclass

from jobqd.scripts import Script
from tests.property.faulty import failing


@dataclass
class Rule:
    """What to do with the next requests that run a script.

    reply: the server executes it and its answer is lost, with the connection.  request: it never arrives, and the
    connection hangs.  cut: it never arrives, and the connection is reset.  copy: it arrives, and `delay` seconds later
    once more, as a packet does that was on its way while the sender gave up on it.  error: the server runs the script
    with an error at one of its commands, at the first of them the first time, and so on, in every second request.
    """

    kind: str
    script: Script
    times: int
    delay: float = 0.0
    seen: int = 0

    def takes(self, request: bytes) -> bool:
        """Whether this rule is for a request; counts it."""
        fits = self.times > 0 and (self.script.sha.encode() in request or self.script.source in request)
        self.seen += fits
        if self.kind == "error" and self.seen % 2 == 0:
            return False
        self.times -= fits
        return fits

    def broken(self, request: bytes) -> bytes:
        """Return the request with the script in it replaced by one that fails."""
        _, _, *rest = arguments(request)
        return packed([b"EVAL", failing(self.script, self.seen // 2 + 1), *rest])


def request_size(buffer: bytes) -> int:
    """Return the length of the first whole request (an array of bulk strings) in a buffer, 0 if there is none yet."""
    line = buffer.find(b"\r\n")
    if line < 0:
        return 0
    at = line + 2
    for _ in range(int(buffer[1:line])):
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return 0
        at = line + 2 + int(buffer[at + 1 : line]) + 2
        if at > len(buffer):
            return 0
    return at


def arguments(request: bytes) -> list[bytes]:
    """Return the bulk strings of a whole request."""
    found, at = [], request.index(b"\r\n") + 2
    while at < len(request):
        line = request.index(b"\r\n", at)
        size = int(request[at + 1 : line])
        found.append(request[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
    return found


def packed(words: list[bytes]) -> bytes:
    """Return a request of these bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
