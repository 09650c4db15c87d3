"""Reload: the running daemon follows its configuration, or says why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.cli.chosen import Server
from jobqd.cli.reload import reload
from jobqd.errors import ConfigError
from tests.redis_server import RedisServer
from tests.support.daemon import ROOT, Daemon
from tests.support.servers import newest_server
from tests.support.systemd import notified
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("started", job.id)
    await ledger.gate("film")

@handlers.job("thread")
def thread(job: SyncJob):
    ledger.note("started", job.id)
    ledger.gate_in_thread("film")

@handlers.job("flaky")
async def flaky():
    raise ValueError("as always")
"""


class Office(Workshop):
    """A workshop whose daemons read a file of settings."""

    def write(self, text: str) -> None:
        (self.application.directory / "jobqd.toml").write_text(text)

    def open(self, *arguments: str) -> Daemon:
        daemon = self.daemon(*arguments)
        return daemon.start()

    def reload(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}", "JOBQD_REDIS_URL": self.server.url,
            "JOBQD_RUNTIME_DIR": str(self.application.directory / "run"), **variables,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "jobqd.cli.daemon", "reload", *arguments], cwd=self.application.directory,
            env=environ, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Office]:
    with workshop(server, tmp_path, HANDLERS) as made:
        office = Office(made.server, made.application, made.producer)
        office.daemons = made.daemons
        yield office
        made.producer.redis.flushall()


def test_more_workers_and_other_caps_hold_at_once(place: Office) -> None:
    place.write("concurrency = 2\n[jobs.film]\nconcurrency = 1\n")
    place.open()
    for number in range(3):
        place.producer.put(f"f{number}", "film")
    place.ledger.wait_for("started f0")
    place.write("concurrency = 3\n")
    told = place.reload()
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == ["concurrency: 2 -> 3", "[jobs.film] concurrency: 1 -> not set"]
    for number in range(3):
        place.ledger.wait_for(f"started f{number}")


@pytest.mark.parametrize("job_type", ["film", "thread"])
def test_fewer_workers_let_what_runs_end_and_more_threads_are_made(place: Office, job_type: str) -> None:
    place.write("concurrency = 2\n")
    daemon = place.open()
    for number in range(2):
        place.producer.put(f"f{number}", job_type)
        place.ledger.wait_for(f"started f{number}")
    place.write("concurrency = 1\n")
    assert place.reload().returncode == 0
    place.producer.put("late", job_type)
    place.ledger.open("film")
    for name in ("f0", "f1", "late"):
        assert place.producer.wait(name)["status"] == "completed"
    place.ledger.close("film")
    place.write("concurrency = 4\n")
    assert place.reload().returncode == 0
    for number in range(4):
        place.producer.put(f"g{number}", job_type)
    for number in range(4):
        place.ledger.wait_for(f"started g{number}")
    place.ledger.open("film")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


def test_retry_policy_timeouts_and_the_log_level_change_for_jobs_to_come(place: Office) -> None:
    place.write("retry_delay = '1h'\nretry_max_delay = '1h'\nlog_level = 'warning'\n")
    daemon = place.daemon()
    daemon.start(ready=False)
    eventually(lambda: place.reload().returncode == 0)
    assert not daemon.of("daemon.reloaded")
    place.write("max_attempts = 1\nlog_level = 'info'\n[jobs.film]\ntimeout = '200ms'\nmax_attempts = 1\n")
    assert place.reload().returncode == 0
    daemon.wait_for("daemon.reloaded")
    assert place.producer.run("flaky", "flaky")["status"] == "failed"
    assert place.producer.run("film", "film")["error"] == "timed out after 200ms"


def test_what_needs_a_restart_is_named_and_not_followed(place: Office) -> None:
    daemon = place.open()
    place.write("queue = 'other'\nlease = '20s'\nconcurrency = 3\n")
    told = place.reload("--queue", "job_queue")
    assert told.returncode == 0
    assert told.stdout == "concurrency: 32 -> 3\n"
    assert "only after a restart: queue: job_queue -> other" in told.stderr
    assert "only after a restart: lease: 15s -> 20s" in told.stderr
    record = daemon.wait_for("daemon.restart_needed")
    assert record["level"] == "warning"
    assert record["changes"] == "queue: job_queue -> other, lease: 15s -> 20s"


def test_a_bad_file_is_refused_with_its_reason_and_nothing_changes(place: Office) -> None:
    place.write("concurrency = 1\n")
    daemon = place.open()
    place.write("concurrency = 2\nconcurency = 3\n")
    told = place.reload()
    assert told.returncode == 78
    assert "concurency" in told.stderr
    assert "did you mean" in told.stderr or "concurrency" in told.stderr
    daemon.signal(signal.SIGHUP)
    refused = daemon.wait_for("daemon.reload_refused")
    assert "concurency" in refused["problem"]
    for number in range(2):
        place.producer.put(f"f{number}", "film")
    place.ledger.wait_for("started f0")
    assert not place.ledger.lines("started f1")
    place.ledger.open("film")
    assert place.producer.wait("f1")["status"] == "completed"
    assert daemon.stop() == 0


def test_the_daemons_own_view_decides(place: Office) -> None:
    """Its command line and environment go before the file, also in a reload."""
    daemon = place.open("--concurrency", "5")
    place.write("concurrency = 2\ntimeout = '1m'\n")
    assert place.reload().stdout == "timeout: 1h -> 1m\n"
    assert daemon.of("daemon.reloaded")


def test_as_a_command_of_systemd_it_finds_its_process_and_brings_the_environment(place: Office) -> None:
    daemon = place.open()
    variables = {"MAINPID": str(daemon.pid), "JOBQD_INSTANCE": "default"}
    told = place.reload(**variables, JOBQD_CONCURRENCY="7")
    assert (told.returncode, told.stdout) == (0, "concurrency: 32 -> 7\n")
    told = place.reload(MAINPID="1")
    assert told.returncode == 69
    assert "no daemon with process id 1 listens" in told.stderr


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Where the configuration of a server's units is; `installed` has their daemons beside it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/jobqd.toml").touch()
    (tmp_path / "etc/a.toml").touch()
    return tmp_path / "etc"


def installed(etc: Path) -> Server:
    return Server(etc / "jobqd.toml", etc.parent / "credentials", lambda _: True)


def test_an_administrator_finds_the_units_daemon_by_its_name_alone(
    place: Office, etc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "etc")
    a = ("--config", str(etc / "a.toml"), "--instance", "a")
    unit = place.daemon(*a, runtime_dir=tmp_path / "jobqd-a").start()
    plain = place.daemon("--config", str(etc / "jobqd.toml"), runtime_dir=tmp_path / "jobqd").start()
    (etc / "a.toml").write_text("concurrency = 7\n")
    # Where Redis is, its key_prefix and all else are known to the daemon, and nothing of it is to this command.
    assert reload({}, None, "a", {}, installed(etc)) == 0
    assert capsys.readouterr().out == "concurrency: 32 -> 7\n"
    (etc / "a.toml").write_text("concurrency = 8\n")
    assert reload({"instance": "a"}, etc / "a.toml", None, {}, installed(etc)) == 0
    assert unit.wait_for("daemon.reloaded")
    assert not plain.of("daemon.reloaded")
    (etc / "jobqd.toml").write_text("concurency = 8\n")
    with pytest.raises(ConfigError, match="did you mean concurrency"):
        reload({}, etc / "jobqd.toml", None, {}, installed(etc))
    assert plain.wait_for("daemon.reload_refused"), "as the daemon says, not we"


def test_options_that_name_another_daemon_do_not_reload_the_units(place: Office, etc: Path, tmp_path: Path) -> None:
    plain = place.daemon("--config", str(etc / "jobqd.toml"), runtime_dir=tmp_path / "jobqd").start()
    file = etc / "jobqd.toml"
    for values in ({"instance": "second"}, {"queue": "other"}, {"runtime_dir": str(tmp_path / "elsewhere")}):
        assert reload(values, file, None, {}, installed(etc)) == 69
    assert reload({}, file, None, {"JOBQD_RUNTIME_DIR": str(tmp_path)}, installed(etc)) == 69
    assert not plain.of("daemon.reloaded")


def test_where_a_second_daemon_was_put_beside_the_units_none_is_guessed(
    place: Office, etc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("default", "second"):
        place.daemon("--config", str(etc / "jobqd.toml"), instance=name, runtime_dir=tmp_path / "jobqd").start()
    assert reload({}, etc / "jobqd.toml", None, {}, installed(etc)) == 69
    assert "systemctl reload jobqd.service" in capsys.readouterr().err


def test_a_unit_that_does_not_run_is_named(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, unit in (("jobqd.toml", "jobqd.service"), ("a.toml", "jobqd@a.service")):
        assert reload({}, etc / file, None, {}, installed(etc)) == 69
        assert f"systemctl status {unit}" in capsys.readouterr().err


def test_without_a_daemon_it_says_so(place: Office) -> None:
    told = place.reload()
    assert told.returncode == 69
    assert "no daemon of instance 'default'" in told.stderr
    daemon = place.open()
    daemon.kill()
    assert place.reload().returncode == 69, "its socket is still there"
    # The next one takes the socket's place.
    place.open()
    assert place.reload().returncode == 0


def test_a_storm_of_hangups_reloads_and_a_stop_ends_it_cleanly(place: Office) -> None:
    place.write("concurrency = 2\n")
    with notified(watchdog=180) as systemd:
        os.environ.update(systemd.environ)
        try:
            daemon = place.daemon()
        finally:
            for name in systemd.environ:
                del os.environ[name]
        daemon.start()
        place.producer.put("film", "film")
        place.ledger.wait_for("started film")
        place.write("concurrency = 3\n")
        for _ in range(200):
            daemon.signal(signal.SIGHUP)
        daemon.wait_for("daemon.reloaded", changes="concurrency: 2 -> 3")
        eventually(lambda: systemd.times("RELOADING=1"))
        eventually(lambda: len(systemd.times("READY=1")) == 1 + len(systemd.times("RELOADING=1")))
        assert len(systemd.values("MONOTONIC_USEC")) == len(systemd.times("RELOADING=1"))
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGTERM)
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
    place.ledger.open("film")
    assert daemon.wait() == 0, daemon.log
    assert "Traceback" not in daemon.log
    assert place.producer.status("film") == "completed"


def test_while_redis_is_away_it_reloads_too(place: Office, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/absent.sock"
    daemon = place.daemon(redis_url=url).start(ready=False)
    daemon.wait_for("redis.away")
    place.write("concurrency = 3\n")
    told = place.reload(JOBQD_REDIS_URL=url)
    assert (told.returncode, told.stdout) == (0, "concurrency: 32 -> 3\n")
    assert daemon.stop() == 0


def test_a_closed_terminal_is_a_request_to_stop(place: Office) -> None:
    daemon = place.daemon()
    command = [sys.executable, "-m", "jobqd.cli.daemon", "run"]
    ours, theirs = os.openpty()
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    log = place.application.directory / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *command], cwd=place.application.directory, env=daemon._environ,
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    try:
        eventually(lambda: "daemon.ready" in log.read_text(), log.read_text())
        place.producer.put("film", "film")
        place.ledger.wait_for("started film")
        os.close(ours)  # the kernel sends SIGHUP to the session's leader
        eventually(lambda: "daemon.draining" in log.read_text(), log.read_text())
        process.send_signal(signal.SIGHUP)
        place.ledger.open("film")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert place.producer.status("film") == "completed", log.read_text()
