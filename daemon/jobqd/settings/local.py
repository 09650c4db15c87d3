"""Where the daemon may be asked for its metrics: addresses that no other machine can reach."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from jobqd.settings.kinds import Kind
from jobqd.settings.urls import safe_url
from jobqd.units import shorten

INSTANCE = "{instance}"
_UNIX = "unix://"
# sun_path of unix(7) holds 108 bytes, the last of them NUL.
_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """A loopback address with a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def local_address(text: str, instance: str = INSTANCE) -> LocalAddress:
    """Return the address that a text names; `{instance}` in a path stands for the daemon's name.

    Raises ValueError that says what is wrong, also for an address that other machines could reach.
    """
    if text.startswith(_UNIX):
        return LocalAddress(path=_path(text.removeprefix(_UNIX).replace(INSTANCE, instance)))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it is neither an address with a port nor a Unix socket")
    return LocalAddress(_host(host), int(port))


def _path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError("the path of a Unix socket begins with a slash")
    if len(path.encode("utf-8", "surrogateescape")) > _PATH_MAX:
        raise ValueError(f"the path of a Unix socket is at most {_PATH_MAX} bytes")
    return path


def _host(text: str) -> str:
    if text == "localhost":
        return "127.0.0.1"
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        address = ipaddress.ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        raise ValueError("its host is neither localhost nor an IP address") from None
    if not address.is_loopback:
        raise ValueError(
            "other machines could reach it, and the metrics have no password: listen on loopback, and let a proxy "
            "that asks for one stand before it"
        )
    if bracketed != (address.version == 6):
        raise ValueError("an IPv6 address, and no other, stands in square brackets")
    return str(address)


class MetricsAddress(Kind):
    """Where metrics are served; empty: nowhere."""

    def parse(self, value: Any) -> str:
        """Return the address in one spelling, with `{instance}` left in it."""
        if not isinstance(value, str):
            raise ValueError("it is not a text: put it in quotes")  # noqa: TRY004 - pydantic reports ValueError only
        text = value.strip()
        if not text:
            return ""
        try:
            return str(local_address(text))
        except ValueError as error:
            raise ValueError(f"{shorten(safe_url(text))}: {error}") from None

    def expected(self) -> str:
        """Return what to write."""
        return 'a loopback address such as "127.0.0.1:9464", "unix:///run/jobqd/metrics.sock", or nothing'
