"""An upgrade in place: `pip install` puts other files under a daemon that runs, and the restart comes later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.support.daemon import ROOT, Daemon
from tests.support.servers import newest_server
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job
async def reports(job: Job):
    await job.save_checkpoint({"half": True})
    await job.progress(50, step="half")
    (await job.exec("true"))
    return "reported"

@handlers.job(process=True)
async def alone(job: Job):
    if not ledger.lines("alone"):
        ledger.note("alone", job.fence)
        await ledger.gate("alone")
    return job.fence

@handlers.job
async def fails():
    raise ValueError("no")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place
        place.producer.redis.flushall()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be replaced under a daemon."""
    source, target = ROOT / "daemon" / "jobqd", tmp_path / "site" / "jobqd"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def started(place: Workshop, package: Path) -> Daemon:
    return place.start(package=package.parent, concurrency=4, max_attempts=1)


def test_a_running_daemon_does_not_read_the_scripts_of_another_version(place: Workshop, package: Path) -> None:
    daemon = started(place, package)
    for script in package.rglob("*.lua"):
        script.write_text("return redis.error_reply('a script of another version')")
    assert place.producer.run("r", "reports")["result"] == '"reported"'
    assert place.producer.run("f", "fails")["error"] == "no"
    assert daemon.stop() == 0
    assert not daemon.of("daemon.crashed")


@pytest.mark.parametrize("now", ["replaced", "another version", "half there"])
def test_jobs_that_need_a_process_wait_for_the_restart_uncharged(place: Workshop, package: Path, now: str) -> None:
    daemon, producer = started(place, package), place.producer
    changed = package / ("__init__.py" if now == "another version" else "children/frames.py")
    before = changed.read_text()
    if now == "half there":
        changed.unlink()
    else:
        changed.write_text(f"{before}# another version\n")
    producer.put("first", "alone")
    job = producer.wait("first", "scheduled")
    assert (job.get("attempts", "0"), job.get("crashes"), job.get("interruptions")) == ("0", None, None)
    producer.put("second", "alone")
    producer.wait("second", "scheduled")
    daemon.wait_for("daemon.outdated")
    assert len(daemon.of("daemon.outdated")) == 1
    assert place.ledger.lines("alone") == []
    changed.write_text(before)
    place.ledger.open("alone")
    assert producer.run("third", "alone")["result"] == "1"


def test_a_child_that_began_before_an_upgrade_ends_as_it_should(place: Workshop, package: Path) -> None:
    started(place, package)
    place.producer.put("film", "alone")
    place.ledger.wait_for("alone 1")
    shutil.rmtree(package)
    place.ledger.open("alone")
    assert place.producer.wait("film")["result"] == "1"


def test_a_child_that_finds_nothing_to_import_while_the_same_is_installed_again_costs_no_attempt(
    place: Workshop, package: Path
) -> None:
    place.ledger.open("alone")
    main = package / "children" / "main.py"
    real = main.read_text()
    # The first start meets a moment without the package, whose files are the same again when its failure is judged.
    main.write_text(
        "import pathlib, sys\n"
        f"here, there = pathlib.Path({str(main)!r}), pathlib.Path({str(package.parent / 'main.py')!r})\n"
        "text = here.read_text()\n"
        "if there.exists():\n"
        "    exec(there.read_text())\n"
        "else:\n"
        f"    there.write_text({real!r})\n"
        "    here.unlink(); here.write_text(text)\n"
        "    raise ModuleNotFoundError\n"
    )
    daemon = started(place, package)
    place.producer.put("a", "alone")
    assert place.producer.wait("a", "scheduled", "failed")["status"] == "scheduled"
    assert not daemon.of("daemon.outdated")
    place.producer.redis.zadd("job_queue:scheduled", {"a": 1.7e9})
    job = place.producer.wait("a")
    assert (job["status"], job["attempts"]) == ("completed", "1")


@pytest.mark.parametrize(
    ("said", "interruptions"), [((), None), (("began", "news"), "1")], ids=["before it began", "after it began"]
)
def test_a_child_that_broke_off_in_the_middle_of_an_upgrade_convicts_nobody(
    place: Workshop, package: Path, said: tuple[str, ...], interruptions: str | None
) -> None:
    children = package / "children"
    # A child that is started a moment before its files are replaced, and speaks as those do.
    (children / "main.py").write_text(
        "import pathlib, socket, struct\n"
        "def main():\n"
        "    wire = socket.socket(fileno=3)\n"
        "    wire.recv(2**16)\n"
        f"    pathlib.Path({str(children / 'frames.py')!r}).write_text('')\n"
        f"    for kind in {said!r}:\n"
        '        message = (\'{"kind":"%s"}\' % kind).encode()\n'
        "        wire.sendall(struct.pack('!I', len(message)) + message)\n"
        f"    if {said!r}: wire.recv(1)\n"
    )
    started(place, package)
    place.producer.put("a", "alone")
    job = place.producer.wait("a", "scheduled", "failed")
    found = (job["status"], job.get("attempts", "0"), job.get("crashes"), job.get("interruptions"))
    assert found == ("scheduled", "0", None, interruptions)
