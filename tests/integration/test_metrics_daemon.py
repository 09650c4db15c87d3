"""The metrics endpoint of a real daemon: what it tells under load, while the loop is blocked, and without Redis."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.metrics.look import find_endpoint
from jobqd.settings import load
from jobqd.settings.local import local_address
from tests.redis_server import RedisServer
from tests.support.daemon import Daemon
from tests.support.scrape import Answer, Asker, Scrape
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job
async def quick(job: Job):
    ledger.note("quick", job.id)

@handlers.job(max_attempts=1)
async def fails():
    raise ValueError("no")

@handlers.job(retry_delay="1h", retry_max_delay="1h")
async def again():
    raise ValueError("not yet")

@handlers.job
async def snoozes():
    raise Snooze("1h")

@handlers.job(concurrency=1)
async def film(job: Job):
    ledger.note("film", job.id)
    await ledger.gate("film")

@handlers.job
def in_thread(job: SyncJob):
    ledger.note("in_thread", job.id)
    ledger.gate_in_thread("film")

@handlers.job
async def imports():
    ledger.note("prometheus_client", "prometheus_client" in sys.modules)

@handlers.job
async def blocks():
    ledger.note("blocks")
    ledger.gate_in_thread("blocks")
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def place(server: RedisServer, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(server, tmp_path, HANDLERS) as place:
        yield place


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    return Asker(unix(tmp_path))


def unix(directory: Path) -> str:
    return f"unix://{directory}/m.sock"


def listening(daemon: Daemon) -> Asker:
    return Asker(daemon.wait_for("metrics.listening")["address"])


def scraped(asker: Asker, name: str, value: float, **labels: str) -> Scrape:
    """Return a scrape in which a sample has this value: figures of the queue may be two seconds old."""

    def look() -> Scrape | None:
        found = asker.scrape()
        return found if found.get(name, **labels) == value else None

    return eventually(look, f"{name}{labels} = {value}")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_it_answers_on_every_kind_of_address(place: Workshop, tmp_path: Path, address: str) -> None:
    daemon = place.start(metrics=unix(tmp_path) if address == "unix" else address)
    asker = listening(daemon)
    answer = eventually(lambda: (found := asker.get("/readyz")).status == 200 and found, "ready")
    assert answer.text == "ok\n"
    assert asker.get("/healthz").status == 200
    assert asker.scrape()("jobqd_workers") == 32
    assert asker.get("/metrics", Accept="application/openmetrics-text; version=1.0.0").text.endswith("# EOF\n")
    missing = asker.get("/else?where")
    assert (missing.status, missing.text) == (404, "there are /metrics, /healthz, /readyz\n")
    assert daemon.stop() == 0
    assert not (tmp_path / "m.sock").exists()


def test_nothing_listens_and_nothing_is_imported_unless_it_is_set(place: Workshop) -> None:
    daemon = place.start()
    assert daemon.of("metrics.listening") == []
    place.producer.run("i", "imports")
    assert place.ledger.lines("prometheus_client") == ["prometheus_client False"]
    listeners = Path(f"/proc/{daemon.pid}/net/tcp").read_text()
    owned = {str(path.readlink()) for path in Path(f"/proc/{daemon.pid}/fd").iterdir()}
    for row in listeners.splitlines()[1:]:
        columns = row.split()
        assert columns[3] != "0A" or f"socket:[{columns[9]}]" not in owned


def test_counters_agree_with_what_ran_while_it_is_scraped_under_load(
    place: Workshop, tmp_path: Path, asker: Asker
) -> None:
    place.start(metrics=unix(tmp_path), concurrency=8)
    for number in range(600):
        place.producer.put(f"quick-{number}", "quick")
    for number in range(3):
        place.producer.put(f"fails-{number}", "fails")
    place.producer.put("again", "again")
    place.producer.put("snoozes", "snoozes")
    seen = 0.0
    while seen < 600:
        now = asker.scrape()
        ended = now("jobqd_jobs_ended_total", type="quick", outcome="completed")
        assert ended >= seen, "a counter never falls"
        assert now("jobqd_jobs_started_total", type="quick") >= ended
        seen = ended
    assert len(place.ledger.lines("quick")) == 600
    now = scraped(asker, "jobqd_jobs_ended_total", 1, type="snoozes", outcome="snoozed")
    for job_type, outcome, count in (
        ("quick", "completed", 600), ("fails", "dead", 3), ("again", "retried", 1), ("snoozes", "snoozed", 1),
    ):  # fmt: skip
        assert now("jobqd_jobs_ended_total", type=job_type, outcome=outcome) == count
        assert now.sum("jobqd_jobs_ended_total", type=job_type) == now("jobqd_jobs_started_total", type=job_type)
        assert now("jobqd_job_run_seconds_count", type=job_type) == count
        assert now("jobqd_job_wait_seconds_count", type=job_type) == count
    assert 0 < now("jobqd_job_wait_seconds_sum", type="quick") < 600 * 60
    assert now("jobqd_redis_roundtrip_seconds_count", script="settle") > 0
    # A reading is several commands, so each of its figures is of a moment of its own.
    scraped(asker, "jobqd_queue_scheduled_jobs", 2, queue="job_queue")
    scraped(asker, "jobqd_queue_dead_jobs", 3, queue="job_queue")
    scraped(asker, "jobqd_queue_events_total", 3, queue="job_queue", event="failed")
    now = scraped(asker, "jobqd_queue_events_total", 600, queue="job_queue", event="completed")
    assert now("jobqd_loop_lag_seconds_count") > 0


def test_workers_held_jobs_and_ages_are_told(place: Workshop, tmp_path: Path, asker: Asker) -> None:
    place.start(metrics=unix(tmp_path), concurrency=1)
    place.producer.put("film-1", "film")
    place.ledger.wait_for("film film-1")
    created = f"{time.time() - 500:.3f}"
    place.producer.put("late", "quick", created_at=created)
    place.producer.put("film-2", "film", created_at=created)
    place.producer.put("nobody", "junk")
    now = scraped(asker, "jobqd_queue_ready_jobs", 3, queue="job_queue")
    assert now("jobqd_workers") == now("jobqd_workers_busy") == 1
    assert now("jobqd_queue_active_jobs", queue="job_queue") == 1
    assert now("jobqd_queue_daemons", queue="job_queue") == 1
    assert 490 < now("jobqd_queue_oldest_ready_seconds", queue="job_queue") < 560
    place.ledger.open("film")
    now = scraped(asker, "jobqd_queue_held_jobs", 1, queue="job_queue", reason="other")
    assert now("jobqd_workers_busy") == 0
    told = {text for family in now.families for sample in family.samples for text in sample.labels.values()}
    assert not [text for text in told if "junk" in text]


def test_a_blocked_loop_is_unwell_and_metrics_go_on(place: Workshop, tmp_path: Path, asker: Asker) -> None:
    place.start(metrics=unix(tmp_path))
    assert asker.get("/healthz").status == 200
    place.producer.put("b", "blocks")
    place.ledger.wait_for("blocks")
    answer = eventually(lambda: (found := asker.get("/healthz")).status == 503 and found, "unwell")
    assert "the event loop has been blocked for" in answer.text
    assert asker.get("/readyz").status == 503
    now = asker.scrape()
    assert now("jobqd_loop_blocked_seconds") >= 3
    assert now("jobqd_redis_up") == 1
    assert now("jobqd_claiming") == 0
    place.ledger.open("blocks")
    eventually(lambda: asker.get("/healthz").status == 200, "well again")
    now = asker.scrape()
    assert now("jobqd_loop_lag_seconds_bucket", le="2.5") < now("jobqd_loop_lag_seconds_count")


def test_without_redis_it_says_so_and_gives_no_stale_figures(
    place: Workshop, server: RedisServer, tmp_path: Path, asker: Asker
) -> None:
    place.start(metrics=unix(tmp_path))
    place.producer.run("q", "quick")
    now = scraped(asker, "jobqd_queue_events_total", 1, queue="job_queue", event="completed")
    server.kill()
    answer = eventually(lambda: (found := asker.get("/readyz")).status == 503 and found, "not ready")
    assert "Redis has been away for" in answer.text
    assert asker.get("/healthz").status == 200
    now = scraped(asker, "jobqd_redis_up", 0)
    assert not [name for name in now.names if name.startswith("jobqd_queue_")]
    assert now("jobqd_redis_outages_total") == 1
    assert now("jobqd_jobs_ended_total", type="quick", outcome="completed") == 1
    server.start()
    eventually(lambda: asker.get("/readyz").status == 200, "ready again")
    now = scraped(asker, "jobqd_redis_up", 1)
    assert now("jobqd_redis_away_seconds") == 0


def test_a_redis_that_hangs_delays_a_scrape_by_its_limit_only(
    place: Workshop, server: RedisServer, tmp_path: Path, asker: Asker
) -> None:
    place.start(metrics=unix(tmp_path))
    scraped(asker, "jobqd_redis_up", 1)
    server.freeze()
    try:
        now = scraped(asker, "jobqd_redis_up", 0)
        assert now("jobqd_workers") == 32
    finally:
        server.thaw()


def test_before_redis_is_there_it_is_well_and_not_ready(place: Workshop, server: RedisServer, tmp_path: Path) -> None:
    server.kill()
    daemon = place.daemon(metrics=unix(tmp_path)).start(ready=False)
    asker = listening(daemon)
    assert asker.get("/healthz").status == 200
    assert asker.get("/readyz").status == 503
    assert asker.scrape()("jobqd_redis_up") == 0
    server.start()
    eventually(lambda: asker.get("/readyz").status == 200, "ready")


def test_while_it_drains_it_is_well_and_not_ready(place: Workshop, tmp_path: Path, asker: Asker) -> None:
    daemon = place.start(metrics=unix(tmp_path))
    place.producer.put("film", "film")
    place.ledger.wait_for("film film")
    eventually(lambda: asker.get("/readyz").status == 200, "ready")
    daemon.signal(15)
    answer = eventually(lambda: (found := asker.get("/readyz")).status == 503 and found, "not ready")
    assert "draining" in answer.text
    assert asker.get("/healthz").status == 200
    place.ledger.open("film")
    assert daemon.wait() == 0


def test_a_cancelled_and_a_lost_run_are_told_apart(place: Workshop, tmp_path: Path, asker: Asker) -> None:
    place.start(metrics=unix(tmp_path), lease="3s", concurrency=4)
    for job_id, outcome in (("cancelled", "cancelled"), ("lost", "lost")):
        place.producer.put(job_id, "film")
        place.ledger.wait_for(f"film {job_id}")
        if job_id == "cancelled":
            # At once, and told last, as cancel.lua does: who hears of a cancel that is not true yet hands the job back.
            with place.producer.redis.pipeline(transaction=True) as at_once:
                at_once.zrem("job_queue:active", "cancelled")
                at_once.hset("job:cancelled", mapping={"status": "cancelled", "finished_at": time.time()})
                at_once.publish("job_queue:control", "cancel cancelled")
                at_once.execute()
        else:
            place.producer.redis.hset("job:lost", mapping={"worker": "another", "fence": 9})
        now = scraped(asker, "jobqd_jobs_ended_total", 1, type="film", outcome=outcome)
    assert now("jobqd_leases_lost_total") == 1


def test_a_run_that_goes_on_without_its_lease_is_counted_once(place: Workshop, tmp_path: Path, asker: Asker) -> None:
    place.start(metrics=unix(tmp_path), lease="150ms")
    redis = place.producer.redis
    place.producer.put("lost", "in_thread")
    place.ledger.wait_for("in_thread lost")
    redis.hset("job:lost", mapping={"worker": "another", "fence": 9})
    beats = int(redis.info("commandstats")["cmdstat_evalsha"]["calls"])
    scraped(asker, "jobqd_leases_lost_total", 1)
    eventually(lambda: int(redis.info("commandstats")["cmdstat_evalsha"]["calls"]) > beats + 30, "more beats")
    assert asker.scrape()("jobqd_leases_lost_total") == 1
    place.ledger.open("film")


def test_clients_that_are_slow_or_many_keep_nobody_waiting(place: Workshop, tmp_path: Path) -> None:
    daemon = place.start(metrics="127.0.0.1:0")
    asker = listening(daemon)
    host, port = daemon.wait_for("metrics.listening")["address"].rsplit(":", 1)
    with contextlib.ExitStack() as stack:
        for _ in range(7):
            idle = stack.enter_context(socket.create_connection((host, int(port))))
            idle.sendall(b"GET /metrics HTTP/1.0\r\nX-Slow: ")
        assert asker.scrape()("jobqd_workers") == 32
        more = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)]
        ended = eventually(
            lambda: len(told := select.select(more, [], [], 0)[0]) >= 19 and told, "19 hung up on at once"
        )
        assert {one.recv(1) for one in ended} == {b""}
        started = time.monotonic()
        place.producer.run("q", "quick")
        assert time.monotonic() - started < 2
    now = eventually(lambda: admitted(asker), "room for one more client")
    assert now("jobqd_jobs_ended_total", type="quick", outcome="completed") == 1
    assert daemon.of("metrics.broke") == []


def admitted(asker: Asker) -> Scrape | None:
    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError):
        return asker.scrape()
    return None


def test_an_address_in_use_is_told_and_taken_once_it_is_free(place: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        daemon = place.start(metrics=address)
        failed = daemon.wait_for("metrics.failed")
        assert (failed["level"], failed["address"]) == ("error", address)
        assert "in use" in failed["error"]
        assert place.producer.run("q", "quick")["status"] == "completed"
    assert listening(daemon).get("/healthz").status == 200
    assert len(daemon.of("metrics.failed")) == 1


def test_the_socket_of_a_killed_daemon_is_replaced_and_only_its_group_may_connect(
    place: Workshop, tmp_path: Path, asker: Asker
) -> None:
    first = place.start(metrics=unix(tmp_path))
    assert stat.S_IMODE((tmp_path / "m.sock").stat().st_mode) == 0o660
    first.kill()
    assert (tmp_path / "m.sock").exists()
    second = place.start(metrics=unix(tmp_path))
    second.wait_for("metrics.listening")
    assert asker.get("/healthz").status == 200


def test_a_socket_that_is_served_or_a_file_that_is_none_is_left_alone(place: Workshop, tmp_path: Path) -> None:
    taken = tmp_path / "m.sock"
    taken.write_text("precious")
    daemon = place.start("--instance", "a", metrics=unix(tmp_path))
    assert "no socket" in daemon.wait_for("metrics.failed")["error"]
    assert taken.read_text() == "precious"
    place.start("--instance", "b", metrics=f"unix://{tmp_path}/{{instance}}.sock").wait_for("metrics.listening")
    second = place.start("--instance", "c", metrics=f"unix://{tmp_path}/b.sock")
    assert "another process" in second.wait_for("metrics.failed")["error"]
    assert told(Asker(f"unix://{tmp_path}/b.sock").get("/metrics")) == "b"


def told(answer: Answer) -> str:
    (info,) = [line for line in answer.text.splitlines() if line.startswith("jobqd_info{")]
    return info.partition('daemon="')[2].partition('"')[0]


def test_check_tells_what_is_at_the_address(place: Workshop, tmp_path: Path) -> None:
    daemon = place.start(metrics=unix(tmp_path))
    asker = listening(daemon)
    eventually(lambda: asker.get("/readyz").status == 200, "ready")
    assert found(tmp_path, unix(tmp_path)) == (True, f"a jobqd answers at {unix(tmp_path)}: ready")
    daemon.kill()
    assert found(tmp_path, unix(tmp_path)) == (
        True, f"nothing is served at {unix(tmp_path)} yet: it is while the daemon runs",
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        answering = threading.Thread(target=answer_as_another, args=(other,))
        answering.start()
        assert found(tmp_path, address) == (
            None, f"another program listens at {address}: the daemon would run without metrics",
        )  # fmt: skip
        answering.join()


def answer_as_another(listener: socket.socket) -> None:
    client, _ = listener.accept()
    with client:
        client.recv(1000)
        client.sendall(b"HTTP/1.0 200 OK\r\nServer: nginx\r\n\r\nhello")


def found(directory: Path, address: str) -> tuple[bool | None, str]:
    """What the check of this address says."""
    loaded = load({"metrics": address}, environ={}, cwd=directory)
    finding = find_endpoint(local_address(loaded.settings.metrics))
    return finding.ok, finding.message
