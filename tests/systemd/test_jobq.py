"""`sudo jobq` on the server, at 3 a.m.: no options, and it talks to the Redis that the unit talks to."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from jobqd.settings.envfile import variables
from tests.support.documents import Document
from tests.systemd.lab import Application, Machine
from tests.unit.test_settings_envfile import CASES

HANDLERS = "from jobqd import Handlers\nhandlers = Handlers()\n@handlers.job\nasync def nap(): ...\n"
NOBODY = ("runuser", "-u", "nobody", "--")


@pytest.fixture
def locked(app: Application, machine: Machine) -> Iterator[Application]:
    """The unit of an application whose Redis wants a password, which systemd gives the unit as a credential."""
    app.handlers(HANDLERS)
    app.settings(key_prefix="toml:")
    machine.write("/etc/jobqd/jobqd.env", "# of the unit\nJOBQD_KEY_PREFIX='shop: '\nJOBQD_KEY_PREFIX=shop:\n", 0o600)
    machine.write("/etc/jobqd/redis_password", "s3cret\n", 0o600)
    app.redis.config_set("requirepass", "s3cret")
    app.redis.auth("s3cret")
    yield app
    app.redis.config_set("requirepass", "")


def stats(machine: Machine, *options: str, cwd: str = "/") -> dict[str, object]:
    return dict(json.loads(machine.run("jobq", *options, "stats", "--json", cwd=cwd).stdout))


def test_jobq_reads_what_systemd_gives_the_unit(locked: Application, machine: Machine) -> None:
    assert stats(machine)["daemons"] == []  # the unit does not run: the password is that of the file
    locked.start()
    daemons = stats(machine)["daemons"]
    assert [daemon["types"] for daemon in daemons] == [["nap"]]  # type: ignore[index, attr-defined]
    done = machine.run("jobq", "enqueue", "nap", "--watch")
    assert "completed" in done.stdout
    assert locked.redis.keys("toml:*") == []
    # A new password in the file is not the running unit's yet.
    machine.write("/etc/jobqd/redis_password", "new\n", 0o600)
    assert stats(machine)["daemons"]


def test_check_shows_where_each_value_came_from(locked: Application, machine: Machine) -> None:
    command = ("jobqd", "check", "--json", "--config", "/etc/jobqd/jobqd.toml")
    before = json.loads(machine.run(*command, cwd="/srv/shop").stdout)
    assert before["settings"]["redis_password"]["source"] == "file /etc/jobqd/redis_password"
    assert before["settings"]["key_prefix"]["source"] == "file /etc/jobqd/jobqd.env JOBQD_KEY_PREFIX"
    locked.start()
    now = json.loads(machine.run("jobqd", "check", "--json", cwd="/srv/shop").stdout)
    assert now["config"] == "/etc/jobqd/jobqd.toml"
    assert now["settings"]["redis_password"] == {"value": "(hidden)", "source": "credential of jobqd.service"}


def test_an_instance_is_named_with_one_letter(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    for name in ("a", "b"):
        app.settings(name, key_prefix=f"{name}:")
        app.start(f"jobqd@{name}")
    machine.write("/etc/jobqd/b.env", "JOBQD_MAX_READY=1\n")
    machine.run("rm", "-f", "/etc/jobqd/jobqd.toml")
    for name in ("a", "b"):
        (daemon,) = stats(machine, "-i", name)["daemons"]  # type: ignore[misc, attr-defined]
        assert daemon["instance"] == name
    unknown = machine.run("jobq", "-i", "c", "stats", check=False)
    assert (unknown.returncode, "instances of this machine: a, b" in unknown.stderr) == (78, True)
    nameless = machine.run("jobq", "stats", check=False)
    assert (nameless.returncode, "say -i NAME, for one of: a, b" in nameless.stderr) == (78, True)


def test_the_sample_that_install_leaves_does_not_answer_for_an_instance(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings("a", key_prefix="a:")
    app.start("jobqd@a")
    limits = ("stats", "--max-age", "5m", "--max-dead", "10")
    for command in (("stats",), limits, ("dead", "list"), ("enqueue", "nap")):
        done = machine.run("jobq", *command, check=False)
        assert (done.returncode, "say -i NAME, for one of: a;" in done.stderr) == (78, True), done.stdout
    assert "daemons 1" in machine.run("jobq", "-i", "a", *limits).stdout
    assert stats(machine, "--config", "/etc/jobqd/jobqd.toml")["daemons"] == []
    # A unit that the next boot starts, or that runs, is meant; also beside an instance.
    machine.systemctl("enable", "jobqd")
    assert stats(machine)["daemons"] == []
    machine.systemctl("disable", "jobqd")
    app.start()
    assert [daemon["instance"] for daemon in stats(machine)["daemons"]] == ["default"]  # type: ignore[index, attr-defined]
    app.stop()
    assert machine.run("jobq", "stats", check=False).returncode == 78


def test_check_follows_the_unit_that_is_named(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings("a", metrics="unix:///run/jobqd-a/{instance}.sock", app_dir="/srv/shop")
    machine.write("/etc/jobqd/a.env", "JOBQD_KEY_PREFIX=a:\n", 0o600)
    machine.write("/etc/jobqd/redis_password", "s3cret\n", 0o600)
    app.redis.config_set("requirepass", "s3cret")
    app.redis.auth("s3cret")
    try:
        app.start("jobqd@a")
        for option in ("-i", "--instance"):
            document = json.loads(machine.run("jobqd", "check", "--json", option, "a").stdout)
            settings = document["settings"]
            assert document["config"] == "/etc/jobqd/a.toml"
            assert settings["key_prefix"]["value"] == "a:"
            assert settings["redis_password"]["source"] == "credential of jobqd@a.service"
            assert settings["runtime_dir"] == {"value": "/run/jobqd-a", "source": "unit jobqd@a.service"}
            assert settings["instance"]["value"] == "a"
        unknown = machine.run("jobqd", "check", "-i", "c", check=False)
        assert (unknown.returncode, "instances of this machine: a" in unknown.stderr) == (78, True)
        nameless = machine.run("jobqd", "check", check=False)
        assert (nameless.returncode, "which instance?" in nameless.stderr) == (78, True)
    finally:
        app.redis.config_set("requirepass", "")


def test_who_may_not_read_is_told_to_use_sudo(locked: Application, machine: Machine) -> None:
    machine.run("chmod", "755", "/etc/jobqd")
    machine.run("chmod", "640", "/etc/jobqd/jobqd.toml")
    done = machine.run(*NOBODY, "jobq", "stats", check=False)
    assert (done.returncode, "run it with sudo" in done.stderr) == (78, True)
    machine.run("chmod", "644", "/etc/jobqd/jobqd.toml")
    done = machine.run(*NOBODY, "jobq", "stats", check=False)
    assert (done.returncode, "/etc/jobqd/jobqd.env" in done.stderr) == (78, True)
    machine.run("chmod", "644", "/etc/jobqd/jobqd.env")
    for running in (False, True):
        if running:
            locked.start()
        done = machine.run(*NOBODY, "jobq", "stats", check=False)
        assert (done.returncode, "run it with sudo" in done.stderr) == (78, True)
        assert "s3cret" not in done.stdout + done.stderr


def test_who_needs_no_password_needs_no_sudo(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    machine.shell("chmod 755 /etc/jobqd; chmod 644 /etc/jobqd/*")
    app.start()
    done = machine.run(*NOBODY, "jobq", "stats", "--json")
    assert len(json.loads(done.stdout)["daemons"]) == 1


def test_a_developer_with_a_file_of_his_own_is_not_surprised(locked: Application, machine: Machine) -> None:
    machine.write("/tmp/mine/jobqd.toml", 'key_prefix = "mine:"\n')
    document = json.loads(machine.run("jobqd", "check", "--json", cwd="/tmp/mine", check=False).stdout)
    assert document["settings"]["key_prefix"] == {"value": "mine:", "source": "file /tmp/mine/jobqd.toml"}
    assert document["settings"]["redis_password"]["source"] == "default"
    assert document["settings"]["runtime_dir"] == {"value": "/tmp/jobqd-0", "source": "default"}
    machine.write("/etc/jobqd/a.toml", "")
    again = ("jobqd", "check", "--json", "--instance", "a")
    document = json.loads(machine.run(*again, cwd="/tmp/mine", check=False).stdout)
    assert document["config"] == "/tmp/mine/jobqd.toml"
    assert document["settings"]["instance"] == {"value": "a", "source": "command line"}


def as_cron(machine: Machine, user: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as cron runs one of /etc/cron.d: crontab(5)."""
    bare = ("env", "-i", "PATH=/usr/bin:/bin", "SHELL=/bin/sh", f"LOGNAME={user}", "HOME=/tmp")
    return machine.run("runuser", "-u", user, "--", *bare, "/bin/sh", "-c", command, check=False, cwd="/tmp")


def test_the_documented_lines_for_cron_and_nagios_are_checks(locked: Application, machine: Machine) -> None:
    text = Document("docs/operations.md").text
    (cron,) = re.findall(r"^    \*/5 \* \* \* \*  (\w+)  (.*)$", text, re.MULTILINE)
    (nagios,) = re.findall(r"^    nagios  ALL=\((\w+)\) NOPASSWD: (.*)$", text, re.MULTILINE)
    locked.start()
    assert as_cron(machine, *cron).returncode == 0
    assert (said := as_cron(machine, *cron)).stdout + said.stderr == ""
    machine.write("/tmp/jobqd.toml", 'key_prefix = "a trap:"\n')
    well = as_cron(machine, *nagios)
    assert (well.returncode, well.stdout.startswith("JOBQ OK - shop:job_queue: ")) == (0, True), well.stderr
    machine.run("rm", "/tmp/jobqd.toml")
    locked.stop()
    for line in (cron, nagios):
        ill = as_cron(machine, *line)
        assert (ill.returncode, ill.stdout.startswith("JOBQ WARNING - ")) == (1, True), ill.stderr
        assert len(ill.stdout.splitlines()) == 1
    locked.redis.config_set("requirepass", "another")
    assert as_cron(machine, *cron).returncode == 78


@pytest.mark.parametrize("text", [text for text in CASES if "=" in text])
def test_environment_files_are_read_as_systemd_reads_them(machine: Machine, text: str) -> None:
    # Whether what we read is the same as what a process of that unit finds.
    machine.write("/tmp/case.env", text)
    known = {*CASES[text], "A", "B", "C"}
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    done = machine.run(
        "systemd-run", "--quiet", "--pipe", "--wait", "--property=EnvironmentFile=/tmp/case.env", "--",
        "/usr/bin/python3", "-c", script,
    )  # fmt: skip
    given = {name: value for name, value in json.loads(done.stdout).items() if name in known}
    assert given == {name: value for name, value in variables(text).items() if name in known}
