"""Which configuration is meant on a server with several, and when a command must ask instead of guessing."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqd.cli import chosen
from jobqd.cli.chosen import Server, in_use
from jobqd.errors import ConfigError


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of configuration with that of jobqd.service, as `make install` leaves it, and of two instances."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "home").mkdir()
    for name in ("jobqd", "a", "b"):
        (tmp_path / f"etc/{name}.toml").touch()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "etc"


def server(etc: Path, *, used: bool = False) -> Server:
    return Server(etc / "jobqd.toml", etc.parent / "run", lambda unit: used and unit == "jobqd.service")


def test_where_only_instances_are_in_use_one_must_be_named(etc: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"which instance\? jobqd.service neither runs nor is enabled: say -i NAME, for one of: a, b; or",
    ):
        server(etc).file(None, None, {})
    (etc / "jobqd.toml").unlink()
    with pytest.raises(ConfigError, match=r"which instance\? There is no .*: say -i NAME, for one of: a, b"):
        server(etc, used=True).file(None, None, {})


def test_where_the_plain_unit_is_in_use_or_there_is_no_other_it_is_meant(etc: Path) -> None:
    assert server(etc, used=True).file(None, None, {}) is None
    for name in ("a", "b"):
        (etc / f"{name}.toml").unlink()
    assert server(etc).file(None, None, {}) is None


def test_who_says_what_is_meant_is_not_asked(etc: Path, tmp_path: Path) -> None:
    file = etc / "jobqd.toml"
    assert server(etc).file(None, "b", {}) == etc / "b.toml"
    assert server(etc).file(file, None, {}) == file
    assert server(etc).file(None, None, {"JOBQD_CONFIG": str(file)}) is None
    assert server(etc).file(None, None, {"JOBQD_REDIS_URL": "redis://elsewhere"}) is None
    assert server(etc).file(None, None, {}, elsewhere=True) is None
    (tmp_path / "home/jobqd.toml").touch()
    assert server(etc).file(None, None, {}) is None


def test_the_setting_instance_names_an_installed_one_unless_another_file_is_read(etc: Path, tmp_path: Path) -> None:
    found = server(etc)
    assert found.named("a", None, {}) == "a"
    assert found.named("c", None, {}) is None
    assert found.named("jobqd", None, {}) is None
    assert found.named(None, None, {}) is None
    assert found.named("a", etc / "b.toml", {}) is None
    assert found.named("a", None, {"JOBQD_CONFIG": "x.toml"}) is None
    (tmp_path / "home/jobqd.toml").touch()
    assert found.named("a", None, {}) is None


def test_the_unit_is_that_of_the_file(etc: Path, tmp_path: Path) -> None:
    found = server(etc)
    for config, name, directory in ((None, "jobqd.service", "jobqd"), (etc / "b.toml", "jobqd@b.service", "jobqd-b")):
        unit = found.unit(config, {})
        assert unit is not None
        assert (unit.name, unit.runtime_dir) == (name, tmp_path / directory)
    assert found.unit(tmp_path / "b.toml", {}) is None


@pytest.mark.parametrize(
    ("active", "enabled", "used"),
    [
        ("active", "disabled", True),
        ("activating", "disabled", True),
        ("failed", "disabled", True),
        ("inactive", "enabled", True),
        ("inactive", "enabled-runtime", True),
        ("inactive", "disabled", False),
        ("inactive", "", False),
    ],
)
def test_a_unit_is_in_use_that_runs_has_failed_or_comes_with_the_next_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str, enabled: str, used: bool
) -> None:
    systemctl(tmp_path, monkeypatch, f"printf 'ActiveState={active}\\nUnitFileState={enabled}\\n'")
    assert in_use("jobqd.service") is used


@pytest.mark.parametrize("script", ["exit 1", "true", None])
def test_where_systemd_does_not_tell_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    systemctl(tmp_path, monkeypatch, script)
    assert in_use("jobqd.service") is True


def systemctl(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    """Let this script be all there is of systemctl; None: there is none."""
    monkeypatch.setenv("PATH", str(directory))
    if script is not None:
        (directory / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "systemctl").chmod(0o755)


def test_the_files_of_this_machine_are_those_of_the_units() -> None:
    assert Server() == Server(Path("/etc/jobqd/jobqd.toml"), Path("/run/credentials"), chosen.in_use)
