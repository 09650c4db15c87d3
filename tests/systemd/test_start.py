"""Starts that fail: which are tried again, and what the administrator is told meanwhile."""

from __future__ import annotations

from tests.systemd.lab import Application, Machine

NEEDS_A_DATABASE = """
from pathlib import Path
from jobqd import Handlers
if not Path("/srv/shop/database.txt").exists():
    raise ConnectionRefusedError("no database at db:5432")
handlers = Handlers()
@handlers.job
async def nap(): ...
"""


def test_an_import_that_needs_a_database_is_tried_until_there_is_one(app: Application, machine: Machine) -> None:
    app.handlers(NEEDS_A_DATABASE)
    app.settings()
    before = machine.cursor()
    machine.run("systemctl", "start", "jobqd", check=False)
    checked = machine.run("jobqd", "check", check=False, cwd="/srv/shop")
    assert checked.returncode == 78
    assert "/srv/shop/handlers.py:5 in <module>" in checked.stdout
    assert "ConnectionRefusedError: no database at db:5432" in checked.stdout
    machine.wait_until(
        lambda: int(machine.show("jobqd", "NRestarts")) > 6, "as often as the usual start limit and more"
    )
    entry = next(
        entry for entry in machine.journal("jobqd", after=before) if entry.get("EVENT") == "daemon.start_failed"
    )
    assert entry["PRIORITY"] == "2"
    assert "no database at db:5432" in entry["MESSAGE"]
    assert "Traceback" in entry["EXCEPTION"]
    machine.write("/srv/shop/database.txt", "up")
    machine.wait_until(lambda: machine.show("jobqd", "ActiveState") == "active", "it runs")
    app.wait_for(app.enqueue("nap"))


def test_a_module_that_is_not_there_is_not_tried_again(app: Application, machine: Machine) -> None:
    app.handlers("import not_installed_here\n")
    app.settings()
    machine.run("systemctl", "start", "jobqd", check=False)
    machine.wait_until(lambda: machine.show("jobqd", "ActiveState") == "failed", "it gives up")
    assert (machine.show("jobqd", "ExecMainStatus"), machine.show("jobqd", "NRestarts")) == ("78", "0")
