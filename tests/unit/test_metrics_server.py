"""The HTTP server of the metrics endpoint, in this process: clients that are slow, broken or gone, and its own end."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobqd.clock import World
from jobqd.metrics import endpoint as endpoint_module
from jobqd.metrics import server as module
from jobqd.metrics.endpoint import Endpoint
from jobqd.metrics.server import LocalServer, Page
from jobqd.settings.local import LocalAddress
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.scrape import Asker
from tests.support.waiting import eventually


def page(_: str) -> Page:
    return Page(200, "text/plain", b"here\n")


def breaks(_: str) -> Page:
    raise ZeroDivisionError


class Served:
    """A server in a thread, and what it told."""

    def __init__(self, address: LocalAddress) -> None:
        self.errors = 0
        self.ticks = threading.Semaphore(0)
        self.server = LocalServer(
            address, {"/": page, "/breaks": breaks}, on_tick=self.ticks.release, on_error=self.broke
        )
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()
        self.asker = Asker(self.server.name)

    def broke(self) -> None:
        self.errors += 1

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture(params=["127.0.0.1", "unix"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    address = LocalAddress(path=f"{tmp_path}/s") if request.param == "unix" else LocalAddress(request.param)
    served = Served(address)
    yield served
    served.stop()


def connected(served: Served) -> socket.socket:
    connection = served.asker.connection()
    connection.connect()
    assert isinstance(connection.sock, socket.socket)
    return connection.sock


def test_a_client_that_never_asks_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with connected(served) as silent:
        assert silent.recv(1) == b""
    assert served.asker.get("/").text == "here\n"


def test_a_page_that_breaks_is_told_and_the_next_is_answered(served: Served) -> None:
    with pytest.raises(Exception, match=r"."):
        served.asker.get("/breaks")
    eventually(lambda: served.errors == 1, "the error")
    assert served.asker.get("/").status == 200


def test_what_is_not_http_harms_nobody(served: Served) -> None:
    with connected(served) as odd:
        odd.sendall(b"\x16\x03\x01 \x00\xff\r\n\r\n")
        eventually(lambda: odd.recv(1000) == b"", "hung up")
    with connected(served) as long:
        long.sendall(b"GET /" + b"x" * 70_000 + b" HTTP/1.0\r\n\r\n")
        assert b"414" in long.recv(1000)
    assert served.asker.get("/").status == 200


def test_it_ticks_without_clients(served: Served) -> None:
    assert served.ticks.acquire(timeout=5)
    assert served.ticks.acquire(timeout=5)


def test_without_a_file_descriptor_for_a_client_it_does_not_spin(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("socketserver.TCPServer.get_request", refuse)
    with connected(served):
        assert served.ticks.acquire(timeout=5)
        began = time.monotonic()
        for _ in range(3):
            assert served.ticks.acquire(timeout=5)
        assert time.monotonic() - began > 0.9
        monkeypatch.undo()
        assert served.asker.get("/").status == 200


def test_only_get_is_answered(served: Served) -> None:
    connection = served.asker.connection()
    connection.request("DELETE", "/")
    assert connection.getresponse().status == 501
    connection.close()


def test_a_stop_does_not_wait_for_a_client(served: Served) -> None:
    with connected(served):
        served.stop()


def made(address: LocalAddress, log: RecordingLog) -> Endpoint:
    world = World(ManualClock(), lambda: 0.5, log)
    return Endpoint(address, {"/": page}, world, on_tick=lambda: None)


def test_an_endpoint_that_cannot_listen_says_why_and_ends_when_told(tmp_path: Path) -> None:
    log = RecordingLog()
    endpoint = made(LocalAddress(path=f"{tmp_path}/missing/s"), log)
    endpoint.start()
    assert "No such file" in str(endpoint.problem)
    endpoint.close()
    assert not any(thread.name == "jobqd-metrics" for thread in threading.enumerate())


def test_an_endpoint_tries_again_and_says_only_once_that_it_cannot_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[LocalAddress] = []

    def tried(address: LocalAddress, *arguments: Any, **options: Any) -> LocalServer:
        tries.append(address)
        return LocalServer(address, *arguments, **options)

    monkeypatch.setattr(endpoint_module, "RETRY_EVERY", 0.01)
    monkeypatch.setattr(endpoint_module, "LocalServer", tried)
    log = RecordingLog()
    endpoint = made(LocalAddress(path=f"{tmp_path}/later/s"), log)
    endpoint.start()
    eventually(lambda: len(tries) >= 5, "five tries")
    (tmp_path / "later").mkdir()
    eventually(lambda: endpoint.problem is None, "listening")
    assert Asker(f"unix://{tmp_path}/later/s").get("/").text == "here\n"
    endpoint.close()
    assert [event for _, event, _ in log.records] == ["metrics.failed", "metrics.listening"]


def test_an_endpoint_that_was_closed_leaves_no_socket_and_no_thread(tmp_path: Path) -> None:
    endpoint = made(LocalAddress(path=f"{tmp_path}/s"), RecordingLog())
    endpoint.start()
    assert endpoint.problem is None
    endpoint.close()
    assert not (tmp_path / "s").exists()
    assert not any(thread.name == "jobqd-metrics" for thread in threading.enumerate())


def test_an_error_while_a_socket_is_made_leaves_it_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LocalServer] = []

    def refuse(server: LocalServer) -> None:
        made.append(server)
        raise OSError("no")

    monkeypatch.setattr(LocalServer, "server_bind", refuse)
    with pytest.raises(OSError, match="no"):
        LocalServer(LocalAddress("127.0.0.1"), {}, on_tick=lambda: None, on_error=lambda: None)
    assert made[0].socket.fileno() == -1
