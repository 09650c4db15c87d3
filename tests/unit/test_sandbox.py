"""Failures that the hardening of the unit may have caused: what is recognised, and what is advised."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

import pytest

from jobqd.duties.sandbox import Refusal, Sandbox, drop_ins, hardened_unit, refusal, remedy
from jobqd.job import Claimed
from jobqd.retry import Settlement
from tests.support.log import RecordingLog

UNIT = "jobqd.service"
SAMPLES = "/usr/local/share/jobqd"


def traced(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("number", "path", "phrase"),
    [
        (errno.EROFS, "/srv/shop/out.mp4", "Read-only file system"),
        (errno.EACCES, "/srv/films of may", "Permission denied"),
        (errno.EPERM, "/dev/dri/renderD128", "Operation not permitted"),
    ],
)
def test_a_refusal_of_the_system_is_recognised_with_its_path(number, path, phrase):
    assert refusal(traced(OSError(number, os.strerror(number), path))) == Refusal(phrase, path)
    assert refusal(traced(OSError(number, os.strerror(number)))) == Refusal(phrase, "")


def test_a_refusal_inside_another_error_and_one_of_a_program_are_recognised():
    error = RuntimeError("no film")
    error.__cause__ = PermissionError(13, "Permission denied", "/srv/x")
    assert refusal(traced(error)) == Refusal("Permission denied", "/srv/x")
    text = "ffmpeg exited with status 1: /srv/out/a.mp4: Read-only file system"
    assert refusal(text) == Refusal("Read-only file system", "/srv/out/a.mp4")


def test_a_text_that_a_producer_made_long_takes_no_longer_for_its_form():
    # A search for a path at each slash would take an hour.
    assert refusal("/" * 1_000_000) is None
    assert refusal("/" * 1_000_000 + ": Permission denied") == Refusal("Permission denied", "/" * 298)
    assert refusal("/dev/dri/" * 200_000 + "No such file or directory: " * 100_000) is None


@pytest.mark.parametrize("path", ["/dev/dri/renderD128", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"])
def test_a_gpu_that_looks_missing_is_a_refusal(path):
    missing = Refusal("No such file or directory", path)
    assert refusal(traced(FileNotFoundError(2, "No such file or directory", path))) == missing
    assert refusal(f"ffmpeg exited with status 1: {path}: No such file or directory") == missing
    assert (
        refusal(f"[AVHWDeviceContext @ 0x1] No VA display found for device {path}.\nDevice creation failed") == missing
    )


def test_a_family_of_sockets_that_is_locked_is_a_refusal():
    error = OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    assert refusal(traced(error)) == Refusal("Address family not supported by protocol", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ValueError: no",
        "PermissionError: not your film",
        "[Errno 2] No such",
        "[Errno 2] No such file or directory: '/srv/films/in.mp4'",
        "[Errno 2] No such file or directory: '/dev/video0'",
        "/dev/dri/renderD128 is busy; /srv/in.mp4: No such file or directory",
        "No VA display found for any default device.",
    ],
)
def test_other_failures_are_none(text):
    assert refusal(text) is None


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (Refusal("Read-only file system", "/srv/out/a.mp4"), "ReadWritePaths=/srv/out,"),
        (Refusal("Permission denied", "/srv/out/a.mp4"), "check the owner and mode"),
        (Refusal("Permission denied", "/home/ann/key"), "ProtectHome="),
        (Refusal("Operation not permitted", "/dev/dri/card0"), "the lines of /usr/local/share/jobqd/gpu.conf"),
        (Refusal("No such file or directory", "/dev/nvidia0"), "if this machine has that device: sudo systemctl edit"),
        (Refusal("Operation not permitted", ""), "the line of /usr/local/share/jobqd/relax.conf"),
        (Refusal("Address family not supported by protocol", ""), "RestrictAddressFamilies=AF_NETLINK"),
    ],
)
def test_the_remedy_names_the_place(refused, words):
    assert words in remedy(refused, UNIT, SAMPLES)


def test_the_drop_ins_are_named_where_they_are(tmp_path: Path):
    local, system = tmp_path / "local", tmp_path / "system"
    assert drop_ins((local, system)) == "PREFIX/share/jobqd"
    system.mkdir()
    assert drop_ins((local, system)) == str(system)
    local.mkdir()
    assert drop_ins((local, system)) == str(local)


def test_each_type_gets_one_hint_and_none_without_hardening():
    log = RecordingLog()
    order = Settlement("x", "w", 1, "retrying", error="[Errno 30] Read-only file system: '/srv/x'")
    sandbox, free = Sandbox(log, UNIT), Sandbox(log, None)
    for job_type in ("film", "film", "mail"):
        claimed = Claimed("x", 1, 1.0, 0.0, {"type": job_type})
        sandbox.failed(claimed, Settlement("x", "w", 1, "dead", error="ValueError"))
        sandbox.failed(claimed, order)
        free.failed(claimed, order)
    assert [fields["job_type"] for fields in log.of("sandbox.hint")] == ["film", "mail"]


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/system.slice/jobqd.service\n", UNIT),
        ("4:memory:/x\n1:name=systemd:/system.slice/system-jobqd.slice/jobqd@b.service\n0::/\n", "jobqd@b.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
    ],
)
def test_the_unit_is_that_of_the_control_group(tmp_path: Path, groups: str, unit: str | None):
    (tmp_path / "cgroup").write_text(groups)
    (tmp_path / "status").write_text("Name:\tjobqd\nNoNewPrivs:\t1\n")
    assert hardened_unit({"INVOCATION_ID": "1"}, tmp_path) == unit
    assert hardened_unit({}, tmp_path) is None
    (tmp_path / "status").write_text("Name:\tjobqd\nNoNewPrivs:\t0\n")
    assert hardened_unit({"INVOCATION_ID": "1"}, tmp_path) is None
