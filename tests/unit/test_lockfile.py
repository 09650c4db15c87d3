"""The lock of an instance: one holder alive, and the memory of the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobqd.errors import ConfigError
from jobqd.lockfile import InstanceLock, ProgramsLock, boot_id

TARGET = "localhost:6379/0 job_queue"


def lock(directory: Path, instance: str = "default", target: str = TARGET) -> InstanceLock:
    return InstanceLock(directory, instance, target)


def test_one_holder_at_a_time_and_the_error_names_the_remedy(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(ConfigError, match=r"'default'.*--instance"):
        lock(tmp_path).acquire()
    with lock(tmp_path):
        pass


def test_other_instances_and_other_queues_have_locks_of_their_own(tmp_path: Path) -> None:
    with lock(tmp_path), lock(tmp_path, "b"), lock(tmp_path, target="localhost:6379/0 videos"):
        assert len(list(tmp_path.iterdir())) == 3


def test_the_worker_of_a_dead_holder_is_remembered(tmp_path: Path) -> None:
    with lock(tmp_path) as first:
        assert first.predecessor is None
        first.record("worker-1")
    with lock(tmp_path) as second:
        assert second.predecessor == "worker-1"
        # Until its jobs are taken back it is not forgotten.
    with lock(tmp_path) as third:
        assert third.predecessor == "worker-1"
        third.record("w")
    with lock(tmp_path) as fourth:
        assert fourth.predecessor == "w"


def test_after_a_clean_stop_there_is_nobody_to_remember(tmp_path: Path) -> None:
    first = lock(tmp_path)
    first.acquire()
    first.record("worker-1")
    first.forget()
    first.release()
    with lock(tmp_path) as second:
        assert second.predecessor is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"nonsense", b"[]", b'{"worker": 7}', b'{"worker": "w", "boot_id": "another boot"}', b"\xff\xfe",
        b"{" * 5000, json.dumps({"worker": "", "boot_id": boot_id()}).encode(),
    ],
)  # fmt: skip
def test_what_is_not_of_this_boot_or_not_readable_is_nobody(tmp_path: Path, content: bytes) -> None:
    made = lock(tmp_path)
    made.path.write_bytes(content)
    with made:
        assert made.predecessor is None
        made.record("w")
    with lock(tmp_path) as second:
        assert second.predecessor == "w"


def test_a_killed_process_lets_go_and_its_children_do_not_hold_on(tmp_path: Path) -> None:
    program = """
import os, subprocess, sys
from pathlib import Path
from jobqd.lockfile import InstanceLock
lock = InstanceLock(Path(sys.argv[1]), "default", sys.argv[2])
lock.acquire()
lock.record("killed")
child = subprocess.Popen(["sleep", "1000"], close_fds=False, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), TARGET], stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    child = int(done.stdout)
    try:
        with lock(tmp_path) as second:
            assert second.predecessor == "killed"
    finally:
        os.kill(child, 9)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"runtime_dir: .*file/run"):
        lock(tmp_path / "file" / "run").acquire()


def test_the_lock_file_and_its_directory_are_ours_alone(tmp_path: Path) -> None:
    with lock(tmp_path / "run") as made:
        assert made.path.stat().st_mode & 0o777 == 0o600
        assert made.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    made = lock(tmp_path)
    made.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="runtime_dir"):
        made.acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_programs_lock_is_had_again_when_the_last_holder_keeps_it(tmp_path: Path) -> None:
    first, second = ProgramsLock(tmp_path, "default", TARGET), ProgramsLock(tmp_path, "default", TARGET)
    assert first.take()
    assert not second.take()
    number = second.descriptor
    second.replace()
    # Under the same number, which a guardian may have been given already.
    assert (second.descriptor, os.get_inheritable(number)) == (number, False)
    third = ProgramsLock(tmp_path, "default", TARGET)
    assert not third.take()
    second.close()
    assert third.take()
    first.close()
    third.close()


def test_a_programs_lock_that_cannot_be_opened_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot open the lock file .*nowhere.*; set runtime_dir"):
        ProgramsLock(tmp_path / "nowhere", "default", TARGET)
