"""journald's protocol, against a real datagram socket and a parser of its own."""

import array
import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from jobqd.journal import Journal, encode, field_name, stderr_is_journal


def parse(entry: bytes) -> list[tuple[str, bytes]]:
    """Read the wire form as the protocol's description says, sharing nothing with the code under test."""
    fields = []
    while entry:
        head, _, rest = entry.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, entry = rest[8 : 8 + size], rest[8 + size :]
            assert entry[:1] == b"\n"
            entry = entry[1:]
        else:
            entry = rest
        fields.append((name.decode(), value))
    return fields


class Journald:
    """The receiving end."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(str(path))

    def receive(self) -> dict[str, bytes]:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 21, socket.CMSG_LEN(4))
        if ancillary:
            assert data == b""
            fds = array.array("i")
            fds.frombytes(ancillary[0][2])
            with os.fdopen(fds[0], "rb") as file:
                seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
                wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
                assert seals & wanted == wanted
                file.seek(0)
                data = file.read()
        return dict(parse(data))

    def close(self):
        self.socket.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def journald(tmp_path):
    server = Journald(tmp_path / "socket")
    yield server
    server.close()


@pytest.fixture
def journal(journald):
    sender = Journal(journald.path)
    yield sender
    sender.close()


def test_values_of_one_and_of_several_lines_arrive(journal, journald):
    assert journal.send(encode([("MESSAGE", "a=b ü"), ("TEXT", "one\ntwo\n"), ("EMPTY", ""), ("N", "1")]))
    assert journald.receive() == {
        "MESSAGE": "a=b ü".encode(),
        "TEXT": b"one\ntwo\n",
        "EMPTY": b"",
        "N": b"1",
    }


def test_a_lone_surrogate_is_escaped():
    assert encode([("A", "x\udc80")]) == b"A=x\\udc80\n"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("user_id", "USER_ID"),
        ("_private", "PRIVATE"),
        ("9lives", "FIELD_9LIVES"),
        ("größe.x", "GR_SSE_X"),
        ("__", "FIELD"),
        ("", "FIELD"),
        ("a" * 100, "A" * 64),
        ("a\nMESSAGE=b", "A_MESSAGE_B"),
    ],
)
def test_field_names_follow_the_journals_rules(name, wanted):
    assert field_name(name) == wanted


# More than the journal's send buffer can be on any machine, so that no datagram holds it.
BIG = 20 * 2**20


@pytest.mark.parametrize("size", [2**20, BIG])
def test_a_big_message_arrives_whole(journal, journald, size):
    text = "x\n" * (size // 2)
    assert journal.send(encode([("MESSAGE", text)]))
    assert journald.receive()["MESSAGE"] == text.encode()
    assert journal.dropped == 0


def test_memfds_are_closed(journal, journald):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert journal.send(encode([("MESSAGE", "x" * BIG)]))
        assert len(journald.receive()["MESSAGE"]) == BIG
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_full_socket_drops_without_waiting_and_is_reported_once(journal, journald):
    sent = 0
    while journal.send(encode([("MESSAGE", str(sent))])):
        sent += 1
    journal.send(encode([("MESSAGE", "lost too")]))
    assert journal.dropped == 2
    for number in range(sent):
        assert journald.receive()["MESSAGE"] == str(number).encode()
    assert journal.send(encode([("MESSAGE", "again")]))
    assert journald.receive()["MESSAGE"] == b"again"
    report = journald.receive()
    assert (report["EVENT"], report["COUNT"], report["PRIORITY"]) == (b"log.dropped", b"2", b"4")
    assert report["SYSLOG_IDENTIFIER"] == b"jobqd"
    for text in ("one", "two"):
        assert journal.send(encode([("MESSAGE", text)]))
        assert journald.receive()["MESSAGE"] == text.encode()
    assert journal.dropped == 2


def test_a_restarted_journald_is_found_again(journal, journald):
    journald.close()
    assert not journal.send(encode([("MESSAGE", "nobody listens")]))
    restarted = Journald(journald.path)
    try:
        assert journal.send(encode([("MESSAGE", "back")]))
        assert restarted.receive()["MESSAGE"] == b"back"
        assert restarted.receive()["COUNT"] == b"1"
    finally:
        restarted.close()


def test_a_closed_journal_drops(journald):
    journal = Journal(journald.path)
    journal.close()
    assert not journal.send(b"MESSAGE=x\n")
    assert journal.dropped == 1


def test_threads_share_a_journal_and_every_entry_is_received_or_counted(journal, journald):
    received = []

    def read():
        while (fields := journald.receive())["MESSAGE"] != b"end":
            if "EVENT" not in fields:
                received.append(fields["MESSAGE"].decode())

    def write(name):
        for number in range(100):
            journal.send(encode([("MESSAGE", f"{name}-{number}")]))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    dropped = journal.dropped
    while reader.is_alive() and not journal.send(encode([("MESSAGE", "end")])):
        pass
    reader.join()
    assert len(received) + dropped == 300
    assert set(received) <= {f"{name}-{number}" for name in "abc" for number in range(100)}


def test_stderr_is_the_journal_only_if_device_and_inode_match(tmp_path):
    with (tmp_path / "a").open("w") as file:
        stat = os.fstat(file.fileno())
        right = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        assert stderr_is_journal(right, file.fileno())
        assert not stderr_is_journal({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"}, file.fileno())
        assert not stderr_is_journal({}, file.fileno())
        assert not stderr_is_journal({"JOURNAL_STREAM": "nonsense"}, file.fileno())
        number = file.fileno()
    assert not stderr_is_journal(right, number)
