"""From a plain Debian server to a running unit and back: `make install`, the first start, `make uninstall`."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.documents import Document
from tests.systemd.lab import Application, Machine
from tests.systemd.lab.prepare import SOURCE

HANDLERS = """
import os
from jobqd import Handlers
handlers = Handlers()

@handlers.job
async def greet(name: str = "you"):
    return {"greeting": f"hello {name}", "user": os.getuid(), "cwd": os.getcwd(), "home": os.path.expanduser("~")}
"""
UNITS = "/usr/local/lib/systemd/system"
OPERATIONS = Document("docs/operations.md")
MAKE_INSTANCE = "cp /etc/jobqd/jobqd.toml /etc/jobqd/a.toml"


def make(machine: Machine, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return machine.run("make", "-C", "/usr/src/jobqd", *words, check=check)


def greeted(app: Application, name: str = "you") -> str:
    return str(app.wait_for(app.enqueue("greet", name=name))["result"])


def owned(machine: Machine, path: str) -> str:
    return machine.run("stat", "--format=%U %G %a", path).stdout.strip()


def kept(told: str) -> list[str]:
    """Return what uninstall says that it has kept."""
    return [line.removeprefix("Kept ") for line in told.splitlines() if line.startswith("Kept ")]


# ------------------------------------------------------------------------------------------------------- make install


def test_install_puts_everything_in_place_and_systemd_likes_it(app, machine):
    assert machine.run("systemd-analyze", "verify", "jobqd.service", "jobqd@b.service").stderr == ""
    assert f"WorkingDirectory={app.directory}\n" in machine.read(f"{UNITS}/jobqd.service")
    assert f"ExecStart={app.venv}/bin/jobqd run " in machine.read(f"{UNITS}/jobqd@.service")
    assert machine.run("id", "-un", "jobqd").stdout.strip() == "jobqd"
    assert owned(machine, "/etc/jobqd") == "root jobqd 2750"
    assert owned(machine, "/etc/jobqd/jobqd.toml") == "root jobqd 640"
    assert owned(machine, "/etc/jobqd/jobqd.env")[-3:] == "600"
    sample = (SOURCE / "config/jobqd.toml").read_text()
    assert machine.read("/etc/jobqd/jobqd.toml") == sample.replace('# app_dir = "."', f'app_dir = "{app.directory}"')
    assert machine.read("/etc/jobqd/jobqd.env") == (SOURCE / "config/jobqd.env").read_text()
    assert machine.run("jobq", "--version").stdout == machine.run(f"{app.venv}/bin/jobq", "--version").stdout
    for name in ("strict.conf", "gpu.conf", "relax.conf"):
        assert machine.exists(f"/usr/local/share/jobqd/{name}")


def test_a_second_install_renews_the_unit_and_keeps_the_settings(app, machine):
    machine.write("/etc/jobqd/jobqd.toml", "concurrency = 3\n")
    machine.write("/etc/jobqd/jobqd.env", "JOBQD_LOG_LEVEL=debug\n")
    machine.write(f"{UNITS}/jobqd.service", "old")
    app.install()
    assert machine.read("/etc/jobqd/jobqd.toml") == "concurrency = 3\n"
    assert machine.read("/etc/jobqd/jobqd.env") == "JOBQD_LOG_LEVEL=debug\n"
    assert "Type=notify" in machine.read(f"{UNITS}/jobqd.service")


def test_install_without_an_environment_says_what_to_write(shop, machine):
    done = make(machine, "install", check=False)
    assert done.returncode != 0
    assert "make install VENV=/srv/shop/.venv APP_DIR=/srv/shop" in done.stderr
    done = make(machine, "install", "VENV=/srv/none", f"APP_DIR={shop.directory}", check=False)
    assert done.returncode != 0
    assert "there is no /srv/none/bin/jobqd" in done.stderr
    done = make(machine, "install", f"VENV={shop.venv}", "APP_DIR=/tmp/shop", check=False)
    assert done.returncode != 0
    assert "app_dir: /tmp/shop" in done.stderr
    assert not machine.exists("/etc/jobqd")
    assert not machine.exists(f"{UNITS}/jobqd.service")


def test_a_staged_install_touches_nothing_else(shop, machine):
    machine.shell("userdel jobqd || true")
    where = ["DESTDIR=/srv/package", "PREFIX=/usr", "USER=shop"]
    make(machine, "install", f"VENV={shop.venv}", f"APP_DIR={shop.directory}", *where)
    files = machine.shell("cd /srv/package && find . ! -type d | sort").split()
    assert files == [
        "./etc/jobqd/jobqd.env", "./etc/jobqd/jobqd.toml", "./usr/bin/jobq", "./usr/bin/jobqd",
        "./usr/lib/systemd/system/jobqd.service", "./usr/lib/systemd/system/jobqd@.service",
        "./usr/lib/sysusers.d/jobqd.conf", "./usr/lib/tmpfiles.d/jobqd.conf",
        "./usr/share/jobqd/as-installed/jobqd.env", "./usr/share/jobqd/as-installed/jobqd.toml",
        "./usr/share/jobqd/gpu.conf", "./usr/share/jobqd/jobqd.env", "./usr/share/jobqd/jobqd.toml",
        "./usr/share/jobqd/redis-acl.conf", "./usr/share/jobqd/relax.conf", "./usr/share/jobqd/strict.conf",
    ]  # fmt: skip
    assert "\nUser=shop\n" in machine.read("/srv/package/usr/lib/systemd/system/jobqd.service")
    assert "\nu shop " in machine.read("/srv/package/usr/lib/sysusers.d/jobqd.conf")
    assert not machine.exists("/etc/jobqd")
    assert machine.run("id", "jobqd", check=False).returncode != 0
    make(machine, "uninstall", *where)
    assert machine.shell("find /srv/package ! -type d") == ""


def test_a_package_that_was_staged_without_the_group_serves_from_the_next_boot_on(shop, machine):
    shop.handlers(HANDLERS)
    machine.shell("userdel jobqd || true")
    make(machine, "install", f"VENV={shop.venv}", f"APP_DIR={shop.directory}", "DESTDIR=/srv/package", "PREFIX=/usr")
    machine.run("cp", "/srv/package/etc/jobqd/jobqd.toml", "/srv/package/etc/jobqd/a.toml")
    try:
        machine.shell("cp -a /srv/package/. / && systemctl --root=/ enable jobqd jobqd@a 2>/dev/null")
        # What makes systemd-sysusers look at a system that was changed from outside: ConditionNeedsUpdate=.
        machine.shell("rm -f /etc/.updated && rm -rf /run/jobqd*")
        shop.reboot()
        assert owned(machine, "/etc/jobqd") == "root jobqd 2750"
        for unit in ("jobqd", "jobqd@a"):
            assert machine.show(unit, "ActiveState") == "active", machine.log(unit)
        greeted(shop)
    finally:
        make(machine, "uninstall", "PREFIX=/usr")
        machine.shell("rm -rf /srv/package")


def test_uninstall_takes_away_what_install_brought_and_keeps_what_was_changed(app, machine):
    app.handlers(HANDLERS)
    app.start()
    greeted(app)
    machine.systemctl("enable", "jobqd", "jobqd@late")
    machine.write("/etc/jobqd/jobqd.toml", "concurrency = 3\n")
    told = make(machine, "uninstall").stdout
    assert kept(told) == ["/etc/jobqd/jobqd.toml", "/var/lib/jobqd", "the user jobqd"]
    assert machine.systemctl("is-active", "jobqd", check=False) == "inactive"
    left = machine.shell("find / -xdev -name '*jobqd*' -path '/[eu]*' -not -path '/usr/src/*'").split()
    assert left == ["/etc/jobqd", "/etc/jobqd/jobqd.toml"]
    assert not machine.exists("/usr/local/bin/jobq")
    assert machine.exists("/var/lib/jobqd")


def test_uninstall_after_an_upgrade_takes_settings_that_nobody_has_changed(app, machine):
    """An upgrade brings newer samples, and leaves those that were installed first."""
    machine.shell("mkdir /tmp/newer && cp -r /usr/src/jobqd/{Makefile,config,systemd} /tmp/newer")
    for sample in ("jobqd.toml", "jobqd.env"):
        machine.shell(f"echo '# new in this version' >> /tmp/newer/config/{sample}")
    upgrade = ["make", "-C", "/tmp/newer", "install", f"VENV={app.venv}", f"APP_DIR={app.directory}"]
    machine.run(*upgrade)
    assert "new in this version" in machine.read("/usr/local/share/jobqd/jobqd.toml")
    assert "new in this version" not in machine.read("/etc/jobqd/jobqd.toml")
    assert kept(machine.run("make", "-C", "/tmp/newer", "uninstall").stdout) == ["the user jobqd"]
    assert not machine.exists("/etc/jobqd")
    machine.shell("rm -r /tmp/newer")


def test_uninstall_names_whatever_an_administrator_has_added(app, machine):
    machine.run(*MAKE_INSTANCE.split())
    machine.write("/etc/jobqd/redis_password", "open-sesame\n", mode=0o600)
    machine.drop_in("jobqd@.service", "override", "[Service]\nNice=5\n")
    told = kept(make(machine, "uninstall").stdout)
    assert told == [
        "/etc/jobqd/a.toml", "/etc/jobqd/redis_password", "/etc/systemd/system/jobqd@.service.d", "the user jobqd"
    ]  # fmt: skip
    assert all(machine.exists(path) for path in told[:-1])


# -------------------------------------------------------------------------------------------------- start, and settings


def test_the_sample_configuration_starts_and_serves(app, machine):
    app.handlers(HANDLERS)
    app.start()
    user = machine.run("id", "-u", "jobqd").stdout.strip()
    result = greeted(app, "world")
    assert '"greeting":"hello world"' in result
    assert f'"user":{user},' in result
    assert '"cwd":"/srv/shop"' in result
    assert '"home":"/var/lib/jobqd"' in result


def test_an_enabled_unit_serves_after_a_boot(app, machine):
    app.handlers(HANDLERS)
    machine.systemctl("enable", "--quiet", "jobqd")
    app.reboot()
    assert machine.show("jobqd", "ActiveState") == "active", machine.log("jobqd")
    greeted(app)


def test_check_answers_from_anywhere_once_there_are_handlers(app, machine):
    app.handlers(HANDLERS)
    told = machine.run("jobqd", "check", cwd="/etc").stdout
    assert "1: greet" in told
    assert "/etc/jobqd/jobqd.toml" in told


def test_the_environment_file_counts_and_a_missing_one_does_not(app, machine):
    app.handlers(HANDLERS)
    machine.write("/etc/jobqd/jobqd.env", "# a comment\nJOBQD_CONCURRENCY=3\n", mode=0o600)
    app.start()
    assert machine.show("jobqd", "StatusText").startswith("3 workers")
    machine.shell("rm /etc/jobqd/jobqd.env")
    machine.systemctl("restart", "jobqd")
    assert machine.show("jobqd", "StatusText").startswith("32 workers")


def test_the_password_is_a_credential_that_nobody_else_sees(app, machine):
    app.handlers(HANDLERS)
    app.redis.config_set("requirepass", "open-sesame")
    try:
        machine.write("/etc/jobqd/redis_password", "open-sesame\n", mode=0o600)
        app.start()
        greeted(app)
        pid = machine.main_pid("jobqd")
        for place in ("environ", "cmdline"):
            assert "open-sesame" not in (machine.root / f"proc/{pid}/{place}").read_text()
        assert "open-sesame" not in machine.systemctl("show", "jobqd")
        assert "open-sesame" not in machine.log("jobqd")
    finally:
        app.redis.config_set("requirepass", "")


def test_a_configuration_that_cannot_work_fails_once_with_its_reason(app, machine):
    app.handlers(HANDLERS)
    machine.write("/etc/jobqd/jobqd.toml", "concurency = 3\n")
    done = machine.run("systemctl", "start", "jobqd", check=False)
    assert done.returncode != 0
    machine.wait_until(lambda: machine.show("jobqd", "ActiveState") == "failed", "the unit has failed")
    assert machine.show("jobqd", "NRestarts") == "0"
    assert machine.show("jobqd", "ExecMainStatus") == "78"
    assert "did you mean concurrency?" in machine.log("jobqd")


def test_an_instance_is_made_by_a_copy_of_the_settings(app, machine):
    app.handlers(HANDLERS)
    assert f"sudo {MAKE_INSTANCE}" in OPERATIONS.text
    machine.run(*MAKE_INSTANCE.split())
    assert owned(machine, "/etc/jobqd/a.toml") == "root jobqd 640"
    app.start("jobqd@a")
    greeted(app)


@pytest.mark.parametrize("spoilt", ["/etc/jobqd/jobqd.toml", "/etc/jobqd"])
def test_settings_that_the_daemon_may_not_read_are_told_with_the_commands_that_help(app, machine, spoilt):
    app.handlers(HANDLERS)
    machine.run("chgrp", "root", spoilt)
    machine.run("systemctl", "start", "jobqd", check=False)
    assert machine.show("jobqd", "ExecMainStatus") == "78"
    told = re.findall(r"let the group of the unit read it: (.*)", machine.log("jobqd"))
    assert told, machine.log("jobqd")
    machine.shell(told[-1].replace("sudo ", ""))
    app.start()


def test_two_instances_run_side_by_side(app, machine):
    app.handlers(HANDLERS)
    for name, concurrency in (("a", 1), ("b", 2)):
        app.settings(name, concurrency=concurrency)
        app.start(f"jobqd@{name}")
    assert machine.show("jobqd@a", "StatusText").startswith("1 worker")
    assert machine.show("jobqd@b", "StatusText").startswith("2 workers")
    workers = {machine.read(path) for path in machine.shell("ls /run/jobqd-[ab]/*.lock").split()}
    assert len(workers) == 2
    app.stop("jobqd@a")
    greeted(app)


def test_an_application_in_a_private_home_is_reached_and_nothing_else_there(shop, machine):
    home = "/home/deploy/shop"
    machine.shell(
        f"""
        mkdir -p {home} && python3 -m venv --without-pip {home}/.venv
        packages={home}/.venv/lib/python3.*/site-packages
        echo {shop.venv}/lib/python3.*/site-packages > $(echo $packages)/shop.pth
        sed '1s|.*|#!{home}/.venv/bin/python|' {shop.venv}/bin/jobqd > {home}/.venv/bin/jobqd
        cp {home}/.venv/bin/jobqd {home}/.venv/bin/jobq
        chmod 755 {home}/.venv/bin/jobq*; chmod 700 /home/deploy
        echo mine > /home/deploy/diary
        """
    )
    machine.write(f"{home}/handlers.py", HANDLERS.replace('"greeting"', '"beside": os.listdir(".."), "greeting"'))
    make(machine, "install", f"VENV={home}/.venv", f"APP_DIR={home}")
    assert machine.run("systemd-analyze", "verify", "jobqd.service").stderr == ""
    shop.start()
    assert '"beside":["shop"]' in greeted(shop)


@pytest.mark.parametrize("name", ["jobqd.service", "jobqd@.service"])
def test_the_installed_unit_is_the_shipped_one_but_for_the_paths(app, machine, name):
    installed = machine.read(f"{UNITS}/{name}").replace("/srv/shop", "/srv/app")
    assert installed == (SOURCE / "systemd" / name).read_text()
