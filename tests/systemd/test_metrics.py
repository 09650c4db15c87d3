"""Metrics under the shipped unit: over the Unix socket in the runtime directory, with all its hardening."""

from __future__ import annotations

import pytest

from tests.support.scrape import Scrape
from tests.systemd.lab import Application, Machine

HANDLERS = """
from jobqd import Handlers
handlers = Handlers()

@handlers.job
async def mail():
    return None
"""
SOCKET = "/run/jobqd/metrics.sock"
ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode(), end="")
"""


@pytest.fixture
def served(app: Application) -> Application:
    app.handlers(HANDLERS)
    app.settings(metrics=f"unix://{SOCKET}")
    app.start()
    return app


def ask(machine: Machine, path: str, socket: str = SOCKET) -> tuple[int, str]:
    """Ask as curl --unix-socket does; minbase has no curl."""
    status, _, text = machine.run("python3", "-c", ASK, socket, path).stdout.partition("\n")
    return int(status), text


def ready(machine: Machine, socket: str = SOCKET) -> None:
    machine.wait_until(lambda: ask(machine, "/readyz", socket) == (200, "ok\n"), f"{socket} ready")


def test_everything_that_the_document_names_is_told_under_the_hardened_unit(
    served: Application, machine: Machine
) -> None:
    ready(machine)
    served.wait_for(served.enqueue("mail"), "completed")
    now = Scrape(ask(machine, "/metrics")[1])
    assert now("jobqd_jobs_ended_total", type="mail", outcome="completed") == 1
    assert now("jobqd_redis_up") == 1
    assert now("process_resident_memory_bytes") > 10 * 2**20, "it needs /proc/self alone"
    assert now("process_start_time_seconds") > 1.7e9
    assert now("process_max_fds") >= now("process_open_fds") > 3


def test_only_the_group_of_the_daemon_may_connect(served: Application, machine: Machine) -> None:
    ready(machine)
    assert machine.run("stat", "-c", "%a %U %G", SOCKET).stdout.split() == ["660", "jobqd", "jobqd"]
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    other = machine.run(*nobody, "python3", "-c", ASK, SOCKET, "/metrics", check=False)
    assert "PermissionError" in other.stderr


def test_it_survives_a_kill_and_goes_with_a_stop(served: Application, machine: Machine) -> None:
    ready(machine)
    pid = machine.main_pid("jobqd")
    machine.systemctl("kill", "--signal=KILL", "--kill-whom=main", "jobqd")
    # The socket of the old one is there all the time, and refuses.
    machine.wait_until(lambda: machine.main_pid("jobqd") not in (0, pid), "the next one")
    machine.wait_until(lambda: "a jobqd answers" in machine.run("jobqd", "check", check=False).stdout, "its socket")
    ready(machine)
    machine.systemctl("stop", "jobqd")
    assert not machine.exists(SOCKET)


def test_two_instances_have_a_socket_each(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    for name in ("a", "b"):
        app.settings(name, metrics=f"unix:///run/jobqd-{name}/{{instance}}.sock")
        app.start(f"jobqd@{name}")
    for name in ("a", "b"):
        socket = f"/run/jobqd-{name}/{name}.sock"
        ready(machine, socket)
        assert f'daemon="{name}"' in ask(machine, "/metrics", socket)[1]


def test_jobq_stats_is_a_check_that_works_without_flags_at_three_in_the_morning(
    served: Application, machine: Machine
) -> None:
    fine = machine.run("jobq", "stats", "--max-age", "5m", "--max-dead", "10", "--min-daemons", "1")
    assert fine.stdout.startswith("JOBQ OK - job_queue: ready 0, ")
    machine.systemctl("kill", "--signal=KILL", "jobqd")
    machine.systemctl("stop", "jobqd")
    served.redis.delete("job_queue:daemons")
    bad = machine.run("jobq", "stats", "--min-daemons", "1", check=False)
    assert (bad.returncode, bad.stdout.split(" | ")[0]) == (1, "JOBQ WARNING - job_queue: daemons 0, fewer than 1")
