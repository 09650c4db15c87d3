"""The setting `redis_url`: its forms, the credentials inside it, and how to show it without them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

DEFAULT_URL = "redis://localhost:6379/0"
MASK = "***"
_FORMS = {
    "redis": "redis://HOST:6379/0",
    "rediss": "rediss://HOST:6379/0",
    "unix": "unix:///run/redis/redis.sock?db=0",
    "redis+sentinel": "redis+sentinel://HOST1:26379,HOST2:26379/NAME/0",
    "redis+cluster": "redis+cluster://HOST1:6379,HOST2:6379",
    "embedded": "embedded:///DIRECTORY",
}
_DEFAULT_PORTS = {"redis+sentinel": 26379}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{0,2}")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]@]+)(?::(?P<port>[0-9]{1,5}))?")
_SECRET_OPTION = re.compile(r"([?&][^=&#]*(?:password|passwd|secret|token)[^=&#]*=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a `redis_url`; `path` is the socket of unix://, the directory of embedded://."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    database: int = 0
    service: str = ""
    """The name of the master that Sentinel is asked for."""
    path: str = ""
    options: tuple[tuple[str, str], ...] = ()
    """What follows the question mark, decoded, without the credentials and `db`."""
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"RedisUrl({safe_url(str(self))!r})"

    def __str__(self) -> str:
        """Return the URL, without its credentials."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = {
            "redis+sentinel": f"/{quote(self.service)}/{self.database}",
            "redis+cluster": "",
            "unix": quote(self.path),
            "embedded": self.path if self.path.startswith("/") else f"./{self.path}",
        }.get(self.scheme, f"/{self.database}")
        options = list(self.options)
        if self.scheme == "unix" and self.database:
            options.insert(0, ("db", str(self.database)))
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in options)
        return f"{self.scheme}://{hosts}{path}{'?' if query else ''}{query}"

    def under(self, directory: Path) -> RedisUrl:
        """Return the URL with the relative directory of an embedded server made absolute."""
        if self.scheme != "embedded":
            return self
        return replace(self, path=os.path.normpath(directory / self.path))


def safe_url(url: str) -> str:
    """Return a URL with every password in it masked, however malformed the URL is.

    Shows too little rather than too much: all between the scheme and the last @ may be a password.
    """
    shown = _SECRET_OPTION.sub(rf"\g<1>{MASK}", url)
    scheme = _SCHEME.match(shown)
    start = scheme.end() if scheme else 0
    userinfo, at, rest = shown[start:].rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if not at or (not colon and user.startswith("/")):
        return shown
    return f"{shown[:start]}{user + ':' if colon else ''}{MASK}@{rest}"


def has_credentials(url: str) -> bool:
    """Whether a password may stand in a URL, however malformed it is: a user name alone may be one too."""
    try:
        parsed = parse_url(url)
    except ValueError:
        return "@" in url or safe_url(url) != url
    return bool(parsed.password or parsed.username) or safe_url(url) != url


def parse_url(url: str) -> RedisUrl:
    """Return the parts of a `redis_url`. Raises ValueError that says what is wrong and shows no secret."""
    scheme, colon, rest = url.strip().partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in _FORMS:
        raise ValueError("it must begin with one of " + ", ".join(f"{known}://" for known in _FORMS))
    if any(character.isspace() or not character.isprintable() for character in rest):
        raise ValueError("it holds a space or a control character")
    if scheme == "embedded":
        return _embedded(rest)
    if not rest.startswith("//"):
        raise ValueError(f"write it as {_FORMS[scheme]}")
    location, _, query = rest[2:].partition("?")
    username, password, location = _split_credentials(location, query)
    options = _options(query)
    asked_username, asked_password = options.pop("username", None), options.pop("password", None)
    parts = _unix(location, options) if scheme == "unix" else _network(scheme, location, options)
    return replace(
        parts,
        username=username or asked_username,
        password=password or asked_password,
        options=tuple(options.items()),
    )


def _split_credentials(location: str, query: str) -> tuple[str | None, str | None, str]:
    head, slash, tail = location.partition("/")
    userinfo, at, hosts = head.rpartition("@")
    if "#" in location or "#" in query or (not at and "@" in tail and not location.startswith("/")):
        raise ValueError(
            "a user name or password in it must be percent-encoded (/ is %2F, # is %23, ? is %3F, @ is %40); "
            "better, leave it out and set redis_password"
        )
    if not at:
        return None, None, location
    user, colon, password = userinfo.partition(":")
    return unquote(user) or None, (unquote(password) or None) if colon else None, hosts + slash + tail


def _options(query: str) -> dict[str, str]:
    options = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise ValueError("what follows the question mark must be NAME=VALUE pairs, joined by &")
        options[unquote(name)] = unquote(value)
    return options


def _unix(location: str, options: dict[str, str]) -> RedisUrl:
    if not location.startswith("/") or location == "/":
        raise ValueError(f"it needs the absolute path of a socket: {_FORMS['unix']}")
    return RedisUrl("unix", path=unquote(location), database=_database(options.pop("db", "")))


def _network(scheme: str, location: str, options: dict[str, str]) -> RedisUrl:
    authority, _, path = location.partition("/")
    hosts = tuple(_host(text, _DEFAULT_PORTS.get(scheme, 6379)) for text in authority.split(","))
    if len(hosts) > 1 and scheme in ("redis", "rediss"):
        raise ValueError(f"{scheme}:// takes one host; for several write {_FORMS['redis+sentinel']}")
    service = ""
    if scheme == "redis+sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError(f"it names no master for Sentinel to look up: {_FORMS[scheme]}")
    database = _database(path or options.pop("db", ""))
    options.pop("db", None)
    if scheme == "redis+cluster" and database:
        raise ValueError("a cluster has only database 0: leave the number out")
    return RedisUrl(scheme, hosts=hosts, database=database, service=unquote(service))


def _host(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("it names no host and port that can be understood: write HOST:PORT")
    port = int(match["port"] or default_port)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} does not exist: ports go from 1 to 65535")
    return match["host"].strip("[]"), port


def _database(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("the database after the last / must be a number, such as 0")
    return int(text)


def _embedded(rest: str) -> RedisUrl:
    directory = rest.removeprefix("//").removeprefix("./")
    if not directory.strip("/"):
        raise ValueError(f"it needs a directory for the data: {_FORMS['embedded']}, or embedded://./RELATIVE")
    return RedisUrl("embedded", path=directory)
