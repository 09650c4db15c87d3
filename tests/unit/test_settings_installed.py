"""What a unit is given by systemd, read by somebody who works beside it."""

from __future__ import annotations

import errno
import grp
import os
from pathlib import Path

import pytest

from jobqd.errors import ConfigError
from jobqd.settings import load
from jobqd.settings.installed import instance_file, instances
from jobqd.settings.loading import Loaded


class Server:
    """A machine with a directory /etc/jobqd of its own; `load` loads as jobq does."""

    def __init__(self, directory: Path) -> None:
        self.etc = directory / "etc"
        self.run = directory / "run"
        self.home = directory / "home"
        for path in (self.etc, self.run, self.home):
            path.mkdir()
        self.file = self.etc / "jobqd.toml"
        self.file.write_text('redis_url = "redis://toml:1/0"\n')

    def credentials(self, unit: str, **texts: str) -> None:
        (self.run / unit).mkdir()
        for name, text in texts.items():
            (self.run / unit / name).write_text(text)

    def load(self, *, config: Path | None = None, cwd: Path | None = None, **environ: str) -> Loaded:
        where = cwd or self.home
        return load(environ=environ, config=config, cwd=where, system_file=self.file, run_credentials=self.run)


@pytest.fixture
def server(tmp_path) -> Server:
    return Server(tmp_path)


def password(loaded: Loaded) -> str | None:
    secret = loaded.settings.redis_password
    return None if secret is None else secret.get_secret_value()


def test_the_units_environment_file_lies_between_the_environment_and_the_configuration_file(server):
    (server.etc / "jobqd.env").write_text("JOBQD_REDIS_URL='redis://env:2/0'\nJOBQD_QUEUE=q\nPATH=/nowhere\n")
    loaded = server.load(JOBQD_QUEUE="mine")
    assert (loaded.settings.redis_url, loaded.settings.queue) == ("redis://env:2/0", "mine")
    assert loaded.sources["redis_url"] == f"file {server.etc / 'jobqd.env'} JOBQD_REDIS_URL"
    assert loaded.sources["queue"] == "environment JOBQD_QUEUE"


def test_the_daemon_itself_reads_what_systemd_gave_it_and_nothing_else(server):
    (server.etc / "jobqd.env").write_text("JOBQD_QUEUE=q\n")
    (server.etc / "redis_password").write_text("secret\n")
    loaded = load(environ={}, cwd=server.home, system_file=server.file)
    assert (loaded.settings.queue, loaded.settings.redis_password) == ("job_queue", None)


def test_a_misspelled_variable_of_the_environment_file_is_an_error(server):
    (server.etc / "jobqd.env").write_text("JOBQD_REDIS_URLL=redis://env\n")
    with pytest.raises(ConfigError, match="did you mean JOBQD_REDIS_URL"):
        server.load()


def test_the_password_is_that_of_the_running_unit(server):
    (server.etc / "redis_password").write_text("newer\n")
    server.credentials("jobqd.service", redis_password="secret\n")
    loaded = server.load()
    assert password(loaded) == "secret"
    assert loaded.sources["redis_password"] == "credential of jobqd.service"


def test_a_unit_that_does_not_run_has_its_password_in_the_file_it_is_loaded_from(server):
    (server.etc / "redis_password").write_text("secret\n")
    loaded = server.load()
    assert password(loaded) == "secret"
    assert loaded.sources["redis_password"] == f"file {server.etc / 'redis_password'}"


@pytest.mark.parametrize("running", [True, False])
def test_an_empty_credential_is_none(server, running):
    if running:
        server.credentials("jobqd.service", redis_password="\n")
    (server.etc / "redis_password").write_text("not this\n" if running else "\n")
    assert server.load().settings.redis_password is None


def test_an_instance_has_files_of_its_own(server):
    (server.etc / "b.toml").write_text('queue = "b"\n')
    (server.etc / "b.env").write_text("JOBQD_KEY_PREFIX=b:\n")
    (server.etc / "jobqd.env").write_text("JOBQD_KEY_PREFIX=not-this:\n")
    server.credentials("jobqd.service", redis_password="not this")
    server.credentials("jobqd@b.service", redis_password="secret")
    loaded = server.load(config=instance_file("b", server.file))
    assert (loaded.settings.queue, loaded.settings.key_prefix, password(loaded)) == ("b", "b:", "secret")


def test_an_instance_has_its_name_from_the_units_command_line(server):
    (server.etc / "b.toml").write_text('instance = "not-this"\n')
    file = instance_file("b", server.file)
    loaded = server.load(config=file, JOBQD_INSTANCE="nor-this")
    assert (loaded.settings.instance, loaded.sources["instance"]) == ("b", "unit jobqd@b.service")
    named = load({"instance": "x"}, environ={}, config=file, system_file=server.file, run_credentials=server.run)
    assert named.settings.instance == "x"
    assert server.load().settings.instance == "default"


@pytest.mark.parametrize(("name", "directory"), [("jobqd", "jobqd"), ("b", "jobqd-b")])
def test_the_runtime_directory_is_that_of_the_unit_once_systemd_has_made_it(server, name, directory):
    (server.etc / "b.toml").touch()
    file = server.etc / f"{name}.toml"
    before = server.load(config=file, XDG_RUNTIME_DIR="/run/user/0")
    assert (str(before.settings.runtime_dir), before.sources["runtime_dir"]) == (
        "/run/user/0/jobqd", "environment XDG_RUNTIME_DIR",
    )  # fmt: skip
    made = server.run.parent / directory
    made.mkdir()
    after = server.load(config=file, XDG_RUNTIME_DIR="/run/user/0")
    assert after.settings.runtime_dir == made
    assert after.sources["runtime_dir"].startswith("unit jobqd")
    assert str(server.load(config=file, RUNTIME_DIRECTORY="/run/own").settings.runtime_dir) == "/run/own"
    assert str(server.load(config=file, JOBQD_RUNTIME_DIR="/set").settings.runtime_dir) == "/set"
    assert load(environ={}, config=file, system_file=server.file).settings.runtime_dir != made


def test_credentials_that_systemd_gave_this_process_come_first(server, tmp_path):
    server.credentials("jobqd.service", redis_password="not this")
    own = tmp_path / "own"
    own.mkdir()
    (own / "redis_password").write_text("secret")
    loaded = server.load(CREDENTIALS_DIRECTORY=str(own))
    assert (password(loaded), loaded.sources["redis_password"]) == ("secret", "credential")


@pytest.mark.parametrize("environ", [{"JOBQD_REDIS_URL": "redis://elsewhere"}, {"JOBQD_REDIS_PASSWORD": "mine"}])
def test_the_password_of_this_machine_goes_to_no_other_redis(server, environ):
    (server.etc / "redis_password").write_text("secret\n")
    assert password(server.load(**environ)) == environ.get("JOBQD_REDIS_PASSWORD")


def test_a_developer_with_a_file_of_his_own_is_not_surprised(server):
    (server.home / "jobqd.toml").write_text('queue = "mine"\n')
    (server.home / "jobqd.env").write_text("JOBQD_QUEUE=not-this\n")
    (server.etc / "jobqd.env").write_text("JOBQD_QUEUE=not-this\nJOBQD_KEY_PREFIX=not-this\n")
    (server.etc / "redis_password").write_text("secret\n")
    loaded = server.load()
    settings = loaded.settings
    assert (settings.queue, settings.key_prefix, settings.redis_password) == ("mine", "", None)
    assert "localhost" in settings.redis_url


def test_the_same_holds_in_the_directory_itself(server):
    (server.etc / "redis_password").write_text("secret\n")
    assert password(server.load(cwd=server.etc)) == "secret"
    assert password(server.load(config=server.etc / ".." / "etc" / "jobqd.toml")) == "secret"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["jobqd.env", "jobqd.toml"])
def test_who_may_not_read_is_told_to_use_sudo(server, name):
    (server.etc / name).touch()
    (server.etc / name).chmod(0)
    with pytest.raises(ConfigError, match=r"Permission denied(.|\n)*run it with sudo"):
        server.load()


@pytest.fixture
def refused(server, monkeypatch) -> Path:
    """The configuration file of a server, which this process may not read, whoever runs it."""

    def deny(path: Path, *_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)
    return server.file


def test_the_unit_itself_is_not_told_to_use_sudo_but_what_its_group_needs(server, refused, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, cwd=server.home, system_file=refused)
    group = grp.getgrgid(os.getegid()).gr_name
    assert f"sudo chgrp {group} {refused} && sudo chmod 640 {refused}" in str(caught.value)
    assert "run it with sudo" not in str(caught.value)


def test_a_person_is_told_to_use_sudo(server, refused):
    with pytest.raises(ConfigError, match="run it with sudo"):
        load(environ={}, cwd=server.home, system_file=refused)


def test_an_unknown_instance_is_told_with_those_there_are(server):
    for name in ("a", "b"):
        (server.etc / f"{name}.toml").touch()
    assert instances(server.file) == ["a", "b"]
    for name in ("c", "../etc/a", "jobqd"):
        with pytest.raises(ConfigError, match="the instances of this machine: a, b"):
            instance_file(name, server.file)
