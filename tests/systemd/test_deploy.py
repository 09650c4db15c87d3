"""Deploys that come faster than films end: the script of docs/operations.md, and releases in their own directories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.documents import Document
from tests.systemd.lab import Application, Machine

HANDLERS = """
import asyncio
from pathlib import Path
from jobqd import Handlers
handlers = Handlers()
RELEASE = 1

@handlers.job
async def film(name: str):
    while not Path("/srv/shop/end.txt").exists():
        await asyncio.sleep(0.05)

@handlers.job
async def nap():
    return RELEASE

@handlers.job(process=True)
async def apart():
    return RELEASE
"""


@pytest.fixture
def script(machine: Machine) -> str:
    (block,) = [block.text for block in Document("docs/operations.md").blocks("sh") if "systemctl" in block.text]
    machine.write("/root/deploy", block, 0o755)
    return "/root/deploy"


def state(machine: Machine) -> str:
    return " ".join(machine.show(f"jobqd@{name}", "ActiveState") for name in "abc")


def enabled(machine: Machine) -> list[str]:
    return [name for name in "abc" if machine.systemctl("is-enabled", f"jobqd@{name}", check=False) == "enabled"]


def begun(app: Application, machine: Machine) -> str:
    """A film that has begun, in whichever daemon claims now."""
    job = app.enqueue("film", name="x")
    app.wait_for(job, "processing")
    return job


def test_a_third_name_starts_at_once_while_two_others_drain(app: Application, machine: Machine, script: str) -> None:
    app.handlers(HANDLERS)
    app.settings("a", drain_timeout="1h", metrics="unix:///run/jobqd-{instance}/metrics.sock")
    machine.shell("ln -s a.toml /etc/jobqd/b.toml; ln -s a.toml /etc/jobqd/c.toml")
    machine.run(script)
    assert (state(machine), enabled(machine)) == ("active inactive inactive", ["a"])
    films = [begun(app, machine)]
    machine.run(script)
    films.append(begun(app, machine))
    assert (state(machine), enabled(machine)) == ("deactivating active inactive", ["b"])
    machine.run(script)
    assert (state(machine), enabled(machine)) == ("deactivating deactivating active", ["c"])
    app.wait_for(app.enqueue("nap"))
    full = machine.run(script, check=False)
    assert (full.returncode, "all of a b c run or drain" in full.stderr) == (1, True)
    assert state(machine) == "deactivating deactivating active"
    machine.write("/srv/shop/end.txt", "")
    for film in films:
        assert app.wait_for(film)["attempts"] == "1"
    machine.wait_until(lambda: state(machine) == "inactive inactive active", "both have ended")
    machine.run(script)
    machine.wait_until(lambda: state(machine) == "active inactive inactive", "the first name is free again")


@pytest.mark.parametrize("handlers", ["import not_there\n", "raise ConnectionRefusedError('no database')\n"])
def test_a_deploy_of_what_cannot_start_leaves_the_old_one_at_work(
    app: Application, machine: Machine, script: str, handlers: str
) -> None:
    app.handlers(HANDLERS)
    for name in "abc":
        app.settings(name)
    machine.run(script)
    app.handlers(handlers)
    assert machine.run(script, check=False).returncode == 1
    assert state(machine) in ("active failed inactive", "active inactive inactive"), "b is not tried again"
    assert enabled(machine) == ["a"]
    app.wait_for(app.enqueue("nap"))


@pytest.fixture
def release(machine: Machine) -> Iterator[str]:
    """The directory of a second release."""
    machine.write("/srv/shop/2/handlers.py", HANDLERS.replace("RELEASE = 1", "RELEASE = 2"))
    yield "/srv/shop/2"
    machine.run("rm", "-r", "/srv/shop/2")


def test_a_release_with_a_directory_of_its_own_is_the_instances_alone(
    app: Application, machine: Machine, release: str
) -> None:
    app.handlers(HANDLERS)
    app.settings("a")
    app.settings("b")
    app.start("jobqd@a")
    machine.shell(
        f"{app.venv}/bin/jobqd unit --app-dir {release} --instance b > /etc/systemd/system/jobqd@b.service; "
        "systemctl daemon-reload"
    )
    # Even a child that starts late is of the old release: it imports from the directory of its daemon.
    assert app.wait_for(app.enqueue("apart"))["result"] == "1"
    app.start("jobqd@b")
    app.stop("jobqd@a")
    for kind in ("nap", "apart"):
        assert app.wait_for(app.enqueue(kind))["result"] == "2"
