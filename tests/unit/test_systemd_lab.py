"""When the tests under a booted systemd may be skipped, and when a lab that does not boot is an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.systemd.lab.possible import Failed, Unavailable, check, check_mirror, tolerated
from tests.systemd.lab.prepare import fetch


@pytest.mark.parametrize(("required", "skipped"), [(None, True), ("required", False)])
def test_a_lab_that_does_not_boot_where_it_could_is_an_error_where_it_is_required(monkeypatch, required, skipped):
    monkeypatch.delenv("JOBQD_LAB", raising=False)
    if required:
        monkeypatch.setenv("JOBQD_LAB", required)
    assert tolerated(Failed("it ended with 1")) is skipped
    assert tolerated(Unavailable("no root")), "what cannot work anywhere else is no error either"


def test_who_is_not_root_has_no_lab(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="needs root"):
        check()


def test_a_machine_without_the_programs_is_told_which(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "debootstrap" else name)
    with pytest.raises(Unavailable, match="no debootstrap: apt-get install"):
        check()


def test_a_mirror_that_does_not_answer_is_told(tmp_path):
    with pytest.raises(Unavailable, match="no Debian to be had from file:///"):
        check_mirror(tmp_path.as_uri(), "bookworm")
    (tmp_path / "dists/bookworm").mkdir(parents=True)
    (tmp_path / "dists/bookworm/Release").touch()
    check_mirror(tmp_path.as_uri(), "bookworm")


@pytest.mark.parametrize(("fails", "runs"), [(0, 1), (2, 3), (9, 3)])
def test_what_cannot_be_downloaded_is_tried_three_times_and_is_no_failure(tmp_path: Path, fails: int, runs: int):
    log, told = tmp_path / "log", []
    command = ["sh", "-c", f"echo x >> {log}; test $(wc -l < {log}) -gt {fails} || {{ echo timed out; exit 7; }}"]
    if fails < 3:
        fetch(command, told.append)
    else:
        with pytest.raises(Unavailable, match="not to be downloaded now: sh failed with 7: timed out"):
            fetch(command, told.append)
    assert len(log.read_text().splitlines()) == runs
    assert told == ["systemd lab: sh failed with 7: timed out"] * min(fails, 3)
