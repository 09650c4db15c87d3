"""sd_notify, against a real datagram socket."""

import contextlib
import os
import socket
import time

import pytest

from jobqd.systemd import Notifier, watchdog_timeout


class Manager:
    """The receiving end of systemd."""

    def __init__(self, address):
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(address)

    def receive(self):
        return self.socket.recv(1 << 16).decode().split("\n")


@pytest.fixture(params=["", "\0"], ids=["path", "abstract"])
def manager(request, tmp_path):
    server = Manager(f"{request.param}{tmp_path}/notify")
    yield server
    server.socket.close()


@pytest.fixture
def notifier(manager):
    sender = Notifier(manager.environ)
    yield sender
    sender.close()


def test_each_call_says_what_systemd_expects(notifier, manager):
    notifier.ready("32 workers")
    assert manager.receive() == ["READY=1", "STATUS=32 workers"]
    notifier.ready()
    assert manager.receive() == ["READY=1"]
    notifier.status("3 jobs\nREADY=1")
    assert manager.receive() == ["STATUS=3 jobs READY=1"]
    notifier.stopping("draining")
    assert manager.receive() == ["STOPPING=1", "STATUS=draining"]
    notifier.watchdog()
    assert manager.receive() == ["WATCHDOG=1"]
    notifier.extend_timeout(1.5)
    assert manager.receive() == ["EXTEND_TIMEOUT_USEC=1500000"]


def test_reloading_tells_the_monotonic_time(notifier, manager):
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, second = manager.receive()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_state_that_finds_no_room_goes_out_later(manager):
    notifier = Notifier(manager.environ)
    filled = 0
    filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with filler, contextlib.suppress(BlockingIOError):
        while filler.sendto(b"x", manager.socket.getsockname()):
            filled += 1
    notifier.ready()
    notifier.watchdog()
    assert [manager.receive() for _ in range(filled)] == [["x"]] * filled
    notifier.status("up")
    assert manager.receive() == ["READY=1", "STATUS=up"]
    notifier.status("still up")
    assert manager.receive() == ["STATUS=still up"]
    notifier.close()


@pytest.mark.parametrize(
    "environ",
    [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:3"}, {"NOTIFY_SOCKET": "/nowhere/notify"}],
)
def test_without_a_manager_nothing_happens(environ):
    notifier = Notifier(environ)
    notifier.ready("up")
    notifier.status("\udc80")
    notifier.stopping()
    notifier.close()


def test_a_closed_notifier_is_silent(manager):
    notifier = Notifier(manager.environ)
    notifier.close()
    notifier.ready()
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.receive()


def test_the_time_of_the_watchdog():
    environ = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert watchdog_timeout(environ) == 30.0
    assert watchdog_timeout({"WATCHDOG_USEC": "30000000"}) == 30.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_for_this_process(environ):
    assert watchdog_timeout(environ) is None
