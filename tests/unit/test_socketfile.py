"""Unix sockets by paths of any length, and who is at the other end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jobqd.socketfile import connect, listen, peer


@pytest.mark.parametrize("directory", ["short", "long" * 60], ids=["short", "long"])
def test_a_path_of_any_length_can_be_listened_at(tmp_path: Path, directory: str) -> None:
    place = tmp_path / directory
    place.mkdir()
    path = place / "jobqd-default-0123456789ab.sock"
    path.touch()  # left by somebody who was killed
    with listen(path) as server, connect(path, 5) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        server.setblocking(True)
        accepted, _ = server.accept()
        with accepted:
            assert peer(client) == peer(accepted) == (os.getpid(), os.getuid())
            client.sendall(b"news")
            assert accepted.recv(10) == b"news"
    assert place not in [descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()]


def test_where_nobody_listens_there_is_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with pytest.raises(FileNotFoundError):
        connect(path, 1)
    listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        connect(path, 1)
