"""Where a daemon logs, by what /proc tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqd.cli.logplace import outside_the_journal

SERVICE = "0::/system.slice/jobqd.service\n"
SESSION = "0::/user.slice/user-1000.slice/session-3.scope\n"


def process(proc: Path, group: str, stderr: str | None, command: bytes = b"/srv/venv/bin/jobqd\0run\0") -> Path:
    (proc / "7/fd").mkdir(parents=True)
    (proc / "7/cgroup").write_text(group)
    (proc / "7/cmdline").write_bytes(command)
    if stderr is not None:
        (proc / "7/fd/2").symlink_to(stderr)
    return proc


@pytest.mark.parametrize(
    ("group", "stderr", "place"),
    [
        (SESSION, "/dev/pts/3", "its own terminal, /dev/pts/3"),
        (SERVICE, "/var/log/jobqd.log", "the file /var/log/jobqd.log"),
        (SESSION, "pipe:[4711]", "another program, through a pipe"),
        (SERVICE, "socket:[4711]", None),
        (SESSION, "/dev/null", None),
        # Of another user's process only the group may be read.
        (SESSION, None, "its own terminal or stderr"),
        (SERVICE, None, None),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-term.scope\n",
            None,
            "its own terminal or stderr",
        ),
        ("0::/\n", None, None),
    ],
)
def test_where_a_daemon_logs(tmp_path: Path, group: str, stderr: str | None, place: str | None) -> None:
    assert outside_the_journal(7, process(tmp_path, group, stderr)) == place


def test_a_process_that_is_gone_or_another_tells_nothing(tmp_path: Path) -> None:
    assert outside_the_journal(8, tmp_path) is None
    assert outside_the_journal(7, process(tmp_path, SESSION, "/dev/pts/3", b"/bin/sh\0")) is None
