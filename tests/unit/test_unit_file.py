"""`jobqd unit`: what it prints for an environment, and that the units in systemd/ are what it prints."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import pytest

from jobqd.cli.daemon import main
from jobqd.cli.unit import TEMPLATE_INSTANCE, Site, this_site, unit_text
from jobqd.errors import ConfigError
from jobqd.settings import load
from tests.support.documents import ROOT

STANDARD = Site(Path("/srv/app/.venv/bin/jobqd"), Path("/srv/app"))


def value(text: str, name: str) -> str:
    """The value of the only line that sets it."""
    (found,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found


def test_the_shipped_units_are_those_for_the_standard_paths():
    assert (ROOT / "systemd/jobqd.service").read_text() == unit_text(STANDARD)
    assert (ROOT / "systemd/jobqd@.service").read_text() == unit_text(STANDARD, TEMPLATE_INSTANCE)


def test_the_paths_and_the_user_are_those_of_the_site():
    text = unit_text(Site(Path("/srv/shop/env/bin/jobqd"), Path("/srv/shop/code"), "deploy"))
    assert value(text, "ExecStart") == "/srv/shop/env/bin/jobqd run --config /etc/jobqd/jobqd.toml"
    assert value(text, "ExecReload") == "/srv/shop/env/bin/jobqd reload --config /etc/jobqd/jobqd.toml"
    assert value(text, "WorkingDirectory") == "/srv/shop/code"
    assert value(text, "User") == value(text, "Group") == "deploy"
    assert value(text, "ProtectHome") == "yes"


def test_an_instance_has_settings_environment_and_runtime_directory_of_its_own():
    text = unit_text(STANDARD, "b")
    assert text.startswith("# jobqd@b.service:")
    assert value(text, "ExecStart") == "/srv/app/.venv/bin/jobqd run --config /etc/jobqd/b.toml --instance b"
    assert value(text, "EnvironmentFile") == "-/etc/jobqd/b.env"
    assert value(text, "RuntimeDirectory") == "jobqd-b"
    assert value(text, "StateDirectory") == "jobqd"


def test_an_application_in_a_home_is_bound_into_an_empty_one():
    site = Site(
        Path("/home/deploy/shop/.venv/bin/jobqd"),
        Path("/home/deploy/shop"),
        interpreter=Path("/root/.pyenv/versions/3.12"),
    )
    text = unit_text(site)
    assert value(text, "ProtectHome") == "tmpfs"
    assert value(text, "BindReadOnlyPaths") == "/home/deploy/shop /root/.pyenv/versions/3.12"


@pytest.mark.parametrize(
    ("command", "app_dir", "user", "named"),
    [
        ("/srv/my shop/bin/jobqd", "/srv/shop", "jobqd", "command: '/srv/my shop/bin/jobqd'"),
        ("/srv/v/bin/jobqd", "/srv/50%", "jobqd", "app_dir: '/srv/50%'"),
        ("/srv/v/bin/jobqd", "/tmp/shop", "jobqd", "app_dir: /tmp/shop"),
        ("/srv/v/bin/jobqd", "/", "jobqd", "app_dir: /"),
        ("/srv/v/bin/jobqd", "/home", "jobqd", "app_dir: /home"),
        ("/srv/v/bin/jobqd", "/srv/shop", "a b", "user: 'a b'"),
    ],
)
def test_what_a_unit_cannot_name_is_refused_with_a_remedy(command, app_dir, user, named):
    with pytest.raises(ConfigError, match=re.escape(named) + ".*(use|move|name|write)"):
        Site(Path(command), Path(app_dir), user)


def test_an_instance_that_is_no_name_is_refused():
    with pytest.raises(ConfigError, match="instance: 'a b'"):
        unit_text(STANDARD, "a b")


@pytest.fixture
def installed(monkeypatch):
    """As if this test ran in /srv/env, made from the system's Python."""
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/srv/env/bin")
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(sys, "base_prefix", "/usr")


def test_the_command_is_that_of_this_environment_and_the_directory_absolute(installed, monkeypatch):
    monkeypatch.chdir("/usr")
    site = this_site(Path("lib/../share"), "jobqd")
    assert site.command == Path("/srv/env/bin/jobqd")
    assert site.app_dir == Path("/usr/share")


def test_an_environment_without_jobqd_is_named(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere/bin")
    with pytest.raises(ConfigError, match="/nowhere/bin/jobqd does not exist; install"):
        this_site(Path("/srv/shop"), "jobqd")


def test_the_command_line_prints_the_unit(installed, capsys):
    assert main(["unit", "--app-dir", "/srv/shop", "--instance", "%i", "--user", "www-data"]) == 0
    assert capsys.readouterr().out == unit_text(Site(Path("/srv/env/bin/jobqd"), Path("/srv/shop"), "www-data"), "%i")


def test_the_command_line_refuses_with_78(monkeypatch, capsys):
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere/bin")
    assert main(["unit"]) == 78
    assert "install jobqd into this environment" in capsys.readouterr().err


def test_the_empty_credential_that_stands_for_a_missing_file_is_no_password(tmp_path):
    assert value(unit_text(STANDARD), "SetCredential") == r"redis_password:\n"
    (tmp_path / "redis_password").write_text("\n")
    loaded = load(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, cwd=tmp_path, system_file=tmp_path / "none")
    assert loaded.settings.redis_password is None
