"""Failures that the unit's locks cause without saying so: the hint names the drop-in that opens them."""

from __future__ import annotations

from tests.systemd.lab import Application, Machine
from tests.systemd.lab.shop import HANDLERS

GPU = "open('/dev/dri/renderD128')"
NETLINK = "__import__('socket').socket(16, 3, 0)"


def hint(app: Application, machine: Machine, code: str) -> str:
    """Fail a job of a daemon that has given no hint yet; returns what it advises."""
    machine.systemctl("restart", "jobqd")
    before = machine.cursor()
    job = app.enqueue("attempt", code=code)
    app.wait_for(job, "failed")
    (entry,) = machine.wait_until(lambda: machine.journal("jobqd", after=before, EVENT="sandbox.hint"), "the hint")
    assert entry["JOB_ID"] == job
    return str(entry["MESSAGE"])


def test_a_gpu_and_a_family_of_sockets_that_seem_not_to_exist(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    assert "/usr/local/share/jobqd/gpu.conf" in hint(app, machine, GPU)
    assert "RestrictAddressFamilies=AF_NETLINK or another as in /usr/local/share" in hint(app, machine, NETLINK)


def test_the_drop_ins_are_named_where_another_prefix_put_them(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    machine.shell("mv /usr/local/share/jobqd /usr/share/jobqd")
    try:
        assert "sudo systemctl edit jobqd.service, the lines of /usr/share/jobqd/gpu.conf" in hint(app, machine, GPU)
    finally:
        machine.shell("mv /usr/share/jobqd /usr/local/share/jobqd")
