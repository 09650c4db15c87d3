"""Where Redis is, and how a connection to it is made."""

from __future__ import annotations

import asyncio
from inspect import signature
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import redis.asyncio.connection as asynchronous
import redis.connection as synchronous
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from jobqd.errors import ConfigError, StoreFault
from jobqd.store.faults import RAISED, fault_of, refusal
from jobqd.store.resolve import Cluster, Directory, Node, Question, Sentinels, hash_tag, slot_of
from jobqd.store.wire import ask, ask_sync, resets_named

if TYPE_CHECKING:  # producers that give a URL do not pay for pydantic
    from jobqd.settings import RedisUrl, Settings

CONNECT_TIMEOUT = 5.0
REPLY_TIMEOUT = 5.0
"""Seconds to wait for a reply; what was sent is safe to send again."""
ANSWER_TIMEOUT = 2.0
"""Seconds that one Sentinel or node has to say where the master is, before another is asked."""
_DIRECT = ("redis", "rediss", "unix")
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
_TIMEOUTS = (TimeoutError, redis_errors.TimeoutError)
# Nothing is sent while connecting but what is needed: a server that refuses CLIENT would log each refusal.
_ANONYMOUS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(synchronous.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


class Target:
    """One Redis, named by a URL; credentials given apart go before those in the URL.

    With redis+sentinel:// and redis+cluster:// the server is looked up for every new connection. `prefix`, the queue's
    key prefix, tells the slot of a cluster. Raises ConfigError for a URL that cannot be used.
    """

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, tls_ca: str | None = None,
        prefix: str = "",
    ) -> None:  # fmt: skip
        self._overrides = {"username": username, "password": password}
        self._tls_ca = tls_ca
        self._directory: Directory | None = None
        self._directory_login: dict[str, Any] = {}
        if url.startswith("embedded:"):
            from jobqd.embedded import socket_path  # noqa: PLC0415 - most daemons run on a server of their own

            url = f"unix://{quote(str(socket_path(url)))}"
        self._url = url if url.partition(":")[0] in _DIRECT else self._look_up(_parsed(url), prefix)
        facts = self._checked()
        self.database = int(facts.get("db") or 0)
        if self._directory is None:
            self.name = facts.get("path") or f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
            """Address for people and for the lock file's name; holds no secret."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return where Redis is by the settings. Raises ConfigError."""
        password = settings.redis_password
        return cls(
            settings.redis_url,
            username=settings.redis_username,
            password=None if password is None else password.get_secret_value(),
            tls_ca=None if settings.tls_ca is None else str(settings.tls_ca),
            prefix=settings.key_prefix,
        )

    def _look_up(self, url: RedisUrl, prefix: str) -> str:
        """Take note of whom to ask for the server; returns a URL of redis-py's for what is not its address."""
        nodes = [Node(*host) for host in url.hosts]
        hosts = ",".join(map(str, nodes))
        options = dict(url.options)
        secure = _switch("tls", options.pop("tls", "")) or self._tls_ca is not None
        login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        for name, value in (("username", url.username), ("password", url.password)):
            if self._overrides[name] is None:
                self._overrides[name] = value
        if url.scheme == "redis+sentinel":
            self.name = f"{url.service} by Sentinel at {hosts}"
            self._directory, self._directory_login = Sentinels(nodes, url.service), login
        else:
            tag = hash_tag(prefix)
            if tag is None:
                raise ConfigError(
                    f'key_prefix "{prefix}": on Redis Cluster it must hold a name in braces, which keeps all keys of '
                    'a queue in one slot, such as "{jobs}:"'
                )
            self.name = f"Cluster at {hosts}"
            self._directory, self._directory_login = Cluster(nodes, slot_of(tag)), dict(self._overrides)
        return f"{'rediss' if secure else 'redis'}://localhost/{url.database}?{urlencode(options)}"

    def _checked(self) -> dict[str, Any]:
        """Return redis-py's arguments after trying them out. Raises ConfigError."""
        try:
            facts = self._arguments(synchronous.parse_url)
            self._sync(None, CONNECT_TIMEOUT)
        except (TypeError, ValueError):
            _parsed(self._url)  # explains most, and shows no secret, which an error of the standard library may
            raise ConfigError(
                "redis_url: what follows its question mark is an option that is not known, or has no such value"
            ) from None
        for option in ("ssl_certfile", "ssl_keyfile"):
            _readable(option, facts.get(option))
        return facts

    def _arguments(self, parse: Any) -> dict[str, Any]:
        arguments = dict(parse(self._url))
        arguments.update({name: value for name, value in self._overrides.items() if value is not None})
        if urlsplit(self._url).scheme == "rediss":
            if self._tls_ca:
                arguments["ssl_ca_certs"] = self._tls_ca
            # Older versions of redis-py do not look at the name in a certificate unless asked to.
            arguments.setdefault("ssl_check_hostname", arguments.get("ssl_cert_reqs") != "none")
        # RESP2 everywhere: the redirected invalidations of CLIENT TRACKING arrive as plain messages there.
        # Texts are kept byte for byte, whatever a producer wrote.
        arguments.update(
            protocol=2, decode_responses=True, encoding_errors="surrogateescape",
            socket_connect_timeout=CONNECT_TIMEOUT, **_ANONYMOUS,
        )  # fmt: skip
        return arguments

    def _async(self, node: Node | None, **changes: Any) -> asynchronous.AbstractConnection:
        """Return a connection that is not yet made; it never retries by itself."""
        arguments = {**self._arguments(asynchronous.parse_url), **_place(node), **changes}
        kind = arguments.pop("connection_class", asynchronous.Connection)
        made = kind(**arguments, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None)
        assert isinstance(made, asynchronous.AbstractConnection)  # noqa: S101 - for the type checker
        return made

    def _sync(self, node: Node | None, timeout: float, **changes: Any) -> synchronous.AbstractConnection:
        arguments = {**self._arguments(synchronous.parse_url), **_place(node), **changes}
        kind = arguments.pop("connection_class", synchronous.Connection)
        made = kind(**arguments, retry=SyncRetry(NoBackoff(), 0), socket_timeout=timeout)
        assert isinstance(made, synchronous.AbstractConnection)  # noqa: S101 - for the type checker
        return made

    def doubt(self) -> None:
        """Take note that the server last named does not serve: look it up elsewhere next time."""
        if self._directory is not None:
            self._directory.doubt()

    async def connect(self) -> asynchronous.AbstractConnection:
        """Return a new connection, for asyncio, to the server of this moment.

        Raises one of `faults.RAISED`.
        """
        node = None if self._directory is None else await self._find(self._directory)
        connection = self._async(node)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT + 1):
                with resets_named():
                    await connection.connect()
                if self._directory is not None and node is not None:
                    await self._admit(self._directory, node, connection)
        except BaseException as error:
            self.doubt()
            await connection.disconnect(nowait=True)
            if isinstance(error, _TIMEOUTS):
                raise self._late() from None
            raise
        return connection

    def _late(self) -> redis_errors.TimeoutError:
        secure = urlsplit(self._url).scheme == "rediss"
        # A server without TLS takes the first bytes of it for the beginning of a long line, and waits for the rest.
        hint = "; if it does not speak TLS on this port, write redis:// for rediss://" if secure else ""
        return redis_errors.TimeoutError(f"no connection to Redis within {CONNECT_TIMEOUT:g} s{hint}")

    async def _admit(self, directory: Directory, node: Node, connection: asynchronous.AbstractConnection) -> None:
        try:
            if directory.admission is not None:
                directory.admit(node, await ask(connection, directory.admission))
        except RAISED as error:
            if not _forbidden(error):
                raise

    async def _find(self, directory: Directory) -> Node:
        search = directory.search()
        try:
            question = next(search)
            while True:
                try:
                    reply = await self._put(question)
                except RAISED as error:
                    question = search.throw(error)
                else:
                    question = search.send(reply)
        except StopIteration as found:
            node: Node = found.value
            return node

    async def _put(self, question: Question) -> Any:
        connection = self._async(question.node, db=0, **self._directory_login)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                with resets_named():
                    await connection.connect()
                return await ask(connection, question.command)
        finally:
            await connection.disconnect(nowait=True)

    def connect_sync(self, timeout: float = REPLY_TIMEOUT) -> synchronous.AbstractConnection:
        """Return a new connection, for a thread, to the server of this moment. Raises one of `faults.RAISED`.

        `timeout`: seconds to wait for a reply.
        """
        node = None if self._directory is None else self._find_sync(self._directory)
        connection = self._sync(node, timeout)
        try:
            connection.connect()
            if self._directory is not None and node is not None:
                self._admit_sync(self._directory, node, connection)
        except BaseException as error:
            self.doubt()
            connection.disconnect()
            if isinstance(error, _TIMEOUTS):
                raise self._late() from None
            raise
        return connection

    def _admit_sync(self, directory: Directory, node: Node, connection: synchronous.AbstractConnection) -> None:
        try:
            if directory.admission is not None:
                directory.admit(node, ask_sync(connection, directory.admission))
        except RAISED as error:
            if not _forbidden(error):
                raise

    def _find_sync(self, directory: Directory) -> Node:
        search = directory.search()
        try:
            question = next(search)
            while True:
                try:
                    reply = self._put_sync(question)
                except RAISED as error:
                    question = search.throw(error)
                else:
                    question = search.send(reply)
        except StopIteration as found:
            node: Node = found.value
            return node

    def _put_sync(self, question: Question) -> Any:
        connection = self._sync(
            question.node, ANSWER_TIMEOUT, db=0, socket_connect_timeout=ANSWER_TIMEOUT, **self._directory_login
        )
        try:
            connection.connect()
            return ask_sync(connection, question.command)
        finally:
            connection.disconnect()


def _parsed(url: str) -> RedisUrl:
    from jobqd.settings.urls import parse_url  # noqa: PLC0415 - imports pydantic, which a plain URL does not need

    try:
        return parse_url(url)
    except ValueError as error:
        raise ConfigError(f"redis_url: {error}") from None


def _readable(option: str, path: str | None) -> None:
    # Once connecting, the error would look like that of a socket that is not there.
    try:
        if path is not None:
            with open(path, "rb"):  # noqa: PTH123 - a text from a URL, not a path of ours
                pass
    except OSError as error:
        raise ConfigError(f"redis_url: {option}={path} cannot be read: {error.strerror}; name a PEM file") from None


def _switch(name: str, text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise ConfigError(f"redis_url: the option {name} after its question mark must be true or false")
    return text.lower() in _YES


def _place(node: Node | None) -> dict[str, Any]:
    return {} if node is None else {"host": node.host, "port": node.port}


def _forbidden(error: Exception) -> bool:
    """Whether we may not ask for the role: then the first write tells a replica from a master."""
    return refusal(error) and fault_of(error) in (StoreFault.DENIED, StoreFault.OTHER)
