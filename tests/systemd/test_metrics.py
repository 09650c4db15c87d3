"""Metrics under the shipped unit, with all its hardening: over a Unix socket in the runtime directory, and over TCP."""

from __future__ import annotations

import re

import pytest

from tests.support.documents import Document
from tests.support.scrape import Scrape
from tests.systemd.lab import Application, Machine

OPERATIONS = Document("docs/operations.md")
HANDLERS = """
import asyncio
from jobqd import Handlers
handlers = Handlers()

@handlers.job
async def mail():
    return None

@handlers.job(concurrency=1)
async def film():
    await asyncio.sleep(600)
"""
SOCKET = "/run/jobqd/metrics.sock"
TCP = "127.0.0.1:9464"
# What a process listens at: its sockets are those of its descriptors, and these tables say which of them listen.
LISTENS = """
import os, sys
from pathlib import Path
at = Path("/proc") / sys.argv[1]
links = [os.readlink(file) for file in (at / "fd").iterdir()]
own = {link[8:-1] for link in links if link.startswith("socket:[")}
for name in ("tcp", "tcp6"):
    for line in (at / "net" / name).read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in own:
            print("tcp", words[1])
for line in (at / "net/unix").read_text().splitlines()[1:]:
    words = line.split()
    if int(words[3], 16) & 0x10000 and words[6] in own:
        print("unix", words[7])
"""


@pytest.fixture
def served(app: Application) -> Application:
    app.handlers(HANDLERS)
    app.settings(metrics=f"unix://{SOCKET}")
    app.start()
    return app


def ask(machine: Machine, path: str, at: str = SOCKET) -> tuple[int, str]:
    """Ask at a socket, as the document says, or at an address."""
    where = ["--unix-socket", at, f"http://localhost{path}"] if at.startswith("/") else [f"http://{at}{path}"]
    text, _, status = machine.run("curl", "-sS", "-w", "\n%{http_code}", *where).stdout.rpartition("\n")
    return int(status), text


def ready(machine: Machine, at: str = SOCKET) -> None:
    machine.wait_until(lambda: ask(machine, "/readyz", at) == (200, "ok\n"), f"{at} ready")


def listens(machine: Machine) -> list[str]:
    pid = str(machine.main_pid("jobqd"))
    return sorted(machine.run("python3", "-c", LISTENS, pid).stdout.splitlines())


def test_everything_that_the_document_names_is_told_under_the_hardened_unit(
    served: Application, machine: Machine
) -> None:
    ready(machine)
    served.wait_for(served.enqueue("mail"), "completed")
    for kind in ("film", "film", "unknown"):
        served.enqueue(kind)

    def scrape() -> Scrape | None:
        now = Scrape(ask(machine, "/metrics")[1])
        held = [now.get("jobqd_queue_oldest_held_seconds", queue="job_queue", reason=reason)
                for reason in ("type:film", "other")]  # fmt: skip
        return None if None in held else now

    now = machine.wait_until(scrape, "figures of held jobs")
    assert now is not None
    document = [name.strip("`") for table in (0, 1) for name in OPERATIONS.column("metric", table)]
    assert len(document) > 30
    assert now.metrics == set(document)
    # Each with a figure, not its heading alone.
    assert all(family.samples for family in now.families), [f.name for f in now.families if not f.samples]
    assert now("jobqd_jobs_ended_total", type="mail", outcome="completed") == 1
    assert now("jobqd_redis_up") == 1
    assert now("process_resident_memory_bytes") > 10 * 2**20, "it needs /proc/self alone"
    assert now("process_start_time_seconds") > 1.7e9
    assert now("process_max_fds") >= now("process_open_fds") > 3


def test_health_is_told_and_readiness_follows_what_an_administrator_does(served: Application, machine: Machine) -> None:
    ready(machine)
    assert ask(machine, "/healthz") == (200, "ok\n")
    machine.systemctl("kill", "--kill-whom=main", "--signal=SIGUSR1", "jobqd")
    machine.wait_until(lambda: ask(machine, "/readyz")[0] == 503, "it claims no more")
    assert "quiet" in ask(machine, "/readyz")[1]
    assert ask(machine, "/healthz")[0] == 200


def test_a_loopback_address_is_served_under_the_hardened_unit_too(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings(metrics=TCP)
    app.start()
    ready(machine, TCP)
    assert Scrape(ask(machine, "/metrics", TCP)[1])("jobqd_redis_up") == 1
    assert [line.split()[0] for line in listens(machine)].count("tcp") == 1


def test_nothing_is_served_unless_it_is_asked_for(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    app.start()
    (only,) = listens(machine)
    # What `systemctl reload` asks at.
    assert re.fullmatch(r"unix /run/jobqd/jobqd-default-\w+\.sock", only), only


def test_only_the_group_of_the_daemon_may_connect(served: Application, machine: Machine) -> None:
    ready(machine)
    assert machine.run("stat", "-c", "%a %U %G", SOCKET).stdout.split() == ["660", "jobqd", "jobqd"]
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    other = machine.run(*nobody, "curl", "-sS", "--unix-socket", SOCKET, "http://localhost/metrics", check=False)
    assert (other.returncode, other.stdout) == (7, ""), other.stderr


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
