"""Where Redis is, and how a connection to it is made."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import redis.asyncio.connection as asynchronous
import redis.connection as synchronous
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from jobqd.errors import ConfigError

CONNECT_TIMEOUT = 5.0
REPLY_TIMEOUT = 5.0
"""Seconds to wait for a reply; what was sent is safe to send again."""


class Target:
    """One Redis, named by a URL; credentials given apart go before those in the URL.

    Raises ConfigError for a URL that cannot be used.
    """

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, tls_ca: str | None = None
    ) -> None:
        self._overrides = {"username": username, "password": password}
        self._tls_ca = tls_ca
        if url.startswith("embedded:"):
            from jobqd.embedded import socket_path  # noqa: PLC0415 - most daemons run on a server of their own

            url = f"unix://{quote(str(socket_path(url)))}"
        if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ConfigError(
                f"redis_url: {urlsplit(url).scheme}:// is not supported by this version; use redis://, rediss://, "
                "unix:// or embedded:"
            )
        self._url = url
        try:
            facts = self._arguments(asynchronous.parse_url)
        except ValueError as error:
            raise ConfigError(f"redis_url: {error}") from None
        self.name = facts.get("path") or f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
        """Address for people and for the lock file's name; holds no secret."""
        self.database = int(facts.get("db") or 0)

    def _arguments(self, parse: Any) -> dict[str, Any]:
        arguments = dict(parse(self._url))
        arguments.update({name: value for name, value in self._overrides.items() if value is not None})
        if self._tls_ca and urlsplit(self._url).scheme == "rediss":
            arguments["ssl_ca_certs"] = self._tls_ca
        # RESP2 everywhere: the redirected invalidations of CLIENT TRACKING arrive as plain messages there.
        # Texts are kept byte for byte, whatever a producer wrote.
        arguments.update(
            protocol=2, decode_responses=True, encoding_errors="surrogateescape",
            socket_connect_timeout=CONNECT_TIMEOUT,
        )  # fmt: skip
        return arguments

    def connection(self) -> asynchronous.AbstractConnection:
        """Return a new, not yet connected connection for asyncio; it never retries by itself."""
        arguments = self._arguments(asynchronous.parse_url)
        kind = arguments.pop("connection_class", asynchronous.Connection)
        made = kind(**arguments, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None)
        assert isinstance(made, asynchronous.AbstractConnection)  # noqa: S101 - for the type checker
        return made

    def sync_connection(self) -> synchronous.AbstractConnection:
        """Return a new, not yet connected connection for a thread; it never retries by itself."""
        arguments = self._arguments(synchronous.parse_url)
        kind = arguments.pop("connection_class", synchronous.Connection)
        made = kind(**arguments, retry=SyncRetry(NoBackoff(), 0), socket_timeout=REPLY_TIMEOUT)
        assert isinstance(made, synchronous.AbstractConnection)  # noqa: S101 - for the type checker
        return made
