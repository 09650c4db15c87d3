"""What keeps a daemon from starting is said in a sentence, with an exit status that tells whose fault it is."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.app import check
from jobqd.settings import load
from tests.redis_server import RedisServer
from tests.support.servers import newest_server
from tests.support.workshop import workshop


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


def test_a_lifespan_that_fails_is_named_with_its_cause(server: RedisServer, tmp_path: Path) -> None:
    handlers = """
@handlers.lifespan
async def lifespan():
    raise ConnectionRefusedError("no database at db:5432")
    yield

@handlers.job("quick")
async def quick():
    ledger.note("ran")
"""
    with workshop(server, tmp_path, handlers) as place:
        place.producer.put("job", "quick")
        daemon = place.daemon().start(ready=False)
        assert daemon.wait() == 70, daemon.log
        record = daemon.wait_for("daemon.start_failed")
        assert record["problem"] == (
            "the lifespan of the handlers raised ConnectionRefusedError: no database at db:5432"
        )
        assert place.producer.status("job") == "queued"
        assert place.ledger.lines() == []


def test_an_import_that_fails_of_the_world_around_it_is_no_wrong_configuration(
    server: RedisServer, tmp_path: Path
) -> None:
    with workshop(server, tmp_path, 'raise ConnectionRefusedError("no database at db:5432")\n') as place:
        daemon = place.daemon().start(ready=False)
        assert daemon.wait() == 70, daemon.log
        record = daemon.wait_for("daemon.start_failed")
        assert record["problem"].endswith("raised ConnectionRefusedError: no database at db:5432")
        assert "handlers.py" in record["exception"]


def test_check_shows_where_such_an_import_failed(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "needs_a_database.py").write_text("\nraise ConnectionRefusedError('no database at db:5432')\n")
    values = {"redis_url": server.url, "app_dir": str(tmp_path), "handlers": "needs_a_database:handlers"}
    found = next(finding for finding in check(load(values, environ={}, cwd=tmp_path)) if finding.subject == "handlers")
    assert found.ok is False
    assert "raised ConnectionRefusedError: no database at db:5432" in found.message
    assert f"{tmp_path}/needs_a_database.py:2 in <module>" in found.message


WAITS = """
@handlers.job("quick")
async def quick(): pass

@handlers.lifespan
async def lifespan():
    ledger.note("entering")
    try:
        await ledger.gate("database")
    except asyncio.CancelledError:
        if {stubborn}:
            ledger.note("asked")
            await ledger.gate("database")
        raise
    yield
"""


def test_a_stop_does_not_wait_for_a_lifespan_that_waits_for_its_database(server: RedisServer, tmp_path: Path) -> None:
    with workshop(server, tmp_path, WAITS.format(stubborn=False)) as place:
        daemon = place.daemon().start(ready=False)
        place.ledger.wait_for("entering")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0, daemon.log
        assert daemon.of("lifespan.cut_short")
        assert "Traceback" not in daemon.log


def test_a_second_signal_ends_a_lifespan_that_ignores_the_first(server: RedisServer, tmp_path: Path) -> None:
    with workshop(server, tmp_path, WAITS.format(stubborn=True)) as place:
        daemon = place.daemon().start(ready=False)
        place.ledger.wait_for("entering")
        daemon.signal(signal.SIGTERM)
        place.ledger.wait_for("asked")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(timeout=9) == 0, daemon.log


def test_a_lock_file_that_cannot_be_written_is_named(server: RedisServer, tmp_path: Path) -> None:
    # What a full /run does: the file can be made, and not be filled.
    handlers = """
@handlers.job("quick")
async def quick(): pass

import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""
    with workshop(server, tmp_path, handlers) as place:
        daemon = place.daemon().start(ready=False)
        assert daemon.wait() == 70, daemon.log
        problem = daemon.wait_for("daemon.start_failed")["problem"]
        assert f"the lock file {tmp_path}/run/jobqd-default-" in problem
        assert "set runtime_dir" in problem


@pytest.mark.parametrize(
    ("handlers", "settings", "says"),
    [
        ("import not_there", {}, "not_there"),
        ("", {"handlers": "handlers:nothing"}, "nothing"),
        ("", {"concurrency": "many"}, "concurrency"),
        ("", {"redis_url": "http://localhost"}, "redis_url"),
    ],
    ids=["import", "attribute", "setting", "url"],
)
def test_a_wrong_configuration_is_told_without_a_traceback(
    server: RedisServer, tmp_path: Path, handlers: str, settings: dict[str, str], says: str
) -> None:
    with workshop(server, tmp_path, handlers) as place:
        daemon = place.daemon(**settings).start(ready=False)
        assert daemon.wait() == 78, daemon.log
        assert says in daemon.log
        assert daemon.log.startswith("jobqd: ")


def test_the_application_may_leave_its_lifespan_with_an_error(server: RedisServer, tmp_path: Path) -> None:
    handlers = """
@handlers.job("quick")
async def quick(): pass

@handlers.lifespan
async def lifespan():
    yield
    ledger.note("left")
    raise RuntimeError("the pool would not close")
"""
    with workshop(server, tmp_path, handlers) as place:
        daemon = place.start()
        assert place.producer.run("job", "quick")["status"] == "completed"
        status = daemon.stop()
        assert place.ledger.lines() == ["left"]
        assert status != 0
        assert "the pool would not close" in daemon.log


def test_programs_started_while_handlers_are_imported_inherit_no_ignored_signal(
    server: RedisServer, tmp_path: Path
) -> None:
    handlers = """
import subprocess
ledger.note(subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1])

@handlers.job("quick")
async def quick():
    pass
"""
    with workshop(server, tmp_path, handlers) as place:
        place.start()
        (mask,) = place.ledger.lines()
        ignored = [
            number for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2) if int(mask, 16) >> number - 1 & 1
        ]
        assert ignored == []
