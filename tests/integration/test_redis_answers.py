"""Every error that Redis may answer, provoked for real, in a script and outside: what it means, what is done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

import jobqd.store.link
from jobqd.errors import StoreError, StoreFault
from jobqd.store import Link, SyncLink, Target
from jobqd.store.faults import REACTIONS
from tests.redis_server import RedisServer, binaries
from tests.support.daemon import Daemon
from tests.support.servers import NEWEST_ONLY, newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    await ledger.gate(job.id)
    return "done"

@handlers.job("quick")
async def quick(): pass
"""
SET = ("SET", "x", "1")
SET_IN_SCRIPT = ("EVAL", "return redis.call('SET', KEYS[1], '1')", 1, "x")

Trouble = Callable[[RedisServer, Any], AbstractContextManager[None]]


@contextmanager
def setting(admin: Any, name: str, value: object, usual: object) -> Iterator[None]:
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, usual)


@contextmanager
def full(server: RedisServer, admin: Any) -> Iterator[None]:
    with setting(admin, "maxmemory", 1, 0):
        yield


@contextmanager
def without_replicas(server: RedisServer, admin: Any) -> Iterator[None]:
    with setting(admin, "min-replicas-to-write", 1, 0):
        yield


@contextmanager
def deposed(server: RedisServer, admin: Any) -> Iterator[None]:
    admin.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        admin.replicaof("no", "one")


@contextmanager
def cut_off(server: RedisServer, admin: Any) -> Iterator[None]:
    with setting(admin, "replica-serve-stale-data", "no", "yes"), deposed(server, admin):
        yield


@contextmanager
def unable_to_save(server: RedisServer, admin: Any) -> Iterator[None]:
    # A snapshot cannot take the place of a directory, not even for root.
    (server.directory / "dump.rdb").mkdir()
    admin.config_set("save", "3600 1")
    admin.bgsave()
    try:
        eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        yield
    finally:
        (server.directory / "dump.rdb").rmdir()
        admin.config_set("save", "")


@contextmanager
def busy(server: RedisServer, admin: Any) -> Iterator[None]:
    def hold() -> None:
        with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=str(server.socket)) as client:
            client.eval("while true do end", 0)

    admin.config_set("lua-time-limit", 10)
    holder = threading.Thread(target=hold)
    holder.start()

    def refused() -> bool:
        try:
            admin.get("x")
        except redis.ResponseError as error:
            return "BUSY" in str(error)
        return False

    try:
        eventually(refused)
        yield
    finally:
        admin.script_kill()
        holder.join()


@contextmanager
def forbidden(server: RedisServer, admin: Any) -> Iterator[None]:
    admin.execute_command("ACL", "SETUSER", "app", "-@write")
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "app", "+@all")


@contextmanager
def another_password(server: RedisServer, admin: Any) -> Iterator[None]:
    admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">other")
    drop_clients(admin)
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">pw")


@contextmanager
def crowded(server: RedisServer, admin: Any) -> Iterator[None]:
    with setting(admin, "maxclients", 1, 10000):
        drop_clients(admin)
        yield


def drop_clients(admin: Any) -> None:
    me = str(admin.client_id())
    for client in admin.client_list():
        if client["id"] != me:
            with contextlib.suppress(redis.ResponseError):
                admin.client_kill_filter(_id=client["id"])


TROUBLES: dict[str, tuple[Trouble, StoreFault]] = {
    "OOM": (full, StoreFault.FULL),
    "NOREPLICAS": (without_replicas, StoreFault.DISK),
    "READONLY": (deposed, StoreFault.READONLY),
    "MASTERDOWN": (cut_off, StoreFault.READONLY),
    "MISCONF": (unable_to_save, StoreFault.DISK),
    "BUSY": (busy, StoreFault.BUSY),
    "NOPERM": (forbidden, StoreFault.DENIED),
    "WRONGPASS": (another_password, StoreFault.DENIED),
    "max clients": (crowded, StoreFault.DOWN),
}


@pytest.fixture(scope="module", params=sorted(binaries()))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One daemon for the whole module, as a user of its own: after each trouble it must serve the next."""
    with (
        RedisServer(binaries()[request.param]) as server,
        workshop(server, tmp_path_factory.mktemp("answers"), HANDLERS) as place,
    ):
        place.producer.redis.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
        place.start(redis_username="app", redis_password="pw")
        yield place


@pytest.fixture
def admin(place: Workshop) -> Iterator[Any]:
    """A connection that was there before the trouble."""
    client = redis.Redis(
        unix_socket_path=str(place.server.socket), decode_responses=True, single_connection_client=True
    )
    client.ping()
    yield client
    client.close()


def fault_of_answer(link: SyncLink, *command: Any) -> StoreFault | None:
    try:
        link.command(*command)
    except StoreError as error:
        return error.fault
    return None


@pytest.mark.parametrize("name", list(TROUBLES))
def test_an_answer_is_known_outside_of_a_script_and_in_one(place: Workshop, admin: Any, name: str) -> None:
    trouble, fault = TROUBLES[name]
    link = SyncLink(Target(place.server.url, username="app", password="pw"))
    assert [fault_of_answer(link, *SET), fault_of_answer(link, *SET_IN_SCRIPT)] == [None, None]
    with trouble(place.server, admin):
        # A connection that was dropped says so first.
        eventually(lambda: fault_of_answer(link, *SET) is fault)
        assert fault_of_answer(link, *SET) is fault
        assert fault_of_answer(link, *SET_IN_SCRIPT) is fault
    eventually(lambda: fault_of_answer(link, *SET) is None)
    link.close()


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (("LPUSH", "x", "1"), StoreFault.WRONGTYPE),
        (("EVAL", "return redis.call('LPUSH', KEYS[1], '1')", 1, "x"), StoreFault.WRONGTYPE),
        (("NOSUCH",), StoreFault.OTHER),
        (("EVAL", "return redis.call('NOSUCH')", 0), StoreFault.OTHER),
        (("EVAL", "return nil + 1", 0), StoreFault.OTHER),
        (("EVAL", "this is not Lua", 0), StoreFault.OTHER),
        (("EVAL", "return redis.call('PUBLISH', 'c', '1')", 0), StoreFault.DENIED),
        (("EVAL", "return redis.call('SET', 'y', '1')", 0), StoreFault.DENIED),
        (("GET", "y"), StoreFault.DENIED),
    ],
)
def test_answers_to_a_single_command(place: Workshop, admin: Any, command: tuple[Any, ...], fault: StoreFault) -> None:
    admin.set("x", "1")
    admin.execute_command("ACL", "SETUSER", "narrow", "on", ">pw", "+@all", "~x", "resetchannels")
    link = SyncLink(Target(place.server.url, username="narrow", password="pw"))
    assert fault_of_answer(link, *command) is fault
    assert fault_of_answer(link, "GET", "x") is None
    link.close()


@pytest.mark.parametrize("command", [SET, SET_IN_SCRIPT])
def test_a_password_that_is_missing(place: Workshop, command: tuple[Any, ...]) -> None:
    with RedisServer(place.server.binary) as server, redis.Redis(unix_socket_path=str(server.socket)) as admin:
        admin.config_set("requirepass", "secret")
        link = SyncLink(Target(server.url))
        assert fault_of_answer(link, *command) is StoreFault.DENIED
        link.close()


async def test_no_answer_at_all(place: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobqd.store.link, "REPLY_TIMEOUT", 0.1)
    link = Link(Target(place.server.url))
    await link.command("PING")
    place.server.freeze()
    try:
        with pytest.raises(StoreError) as error:
            await link.command("PING")
    finally:
        place.server.thaw()
    assert error.value.fault is StoreFault.DOWN
    assert "no reply from Redis within" in str(error.value)
    assert await link.command("PING") == "PONG"
    await link.close()


def lines_of(daemon: Daemon) -> tuple[int, int, int]:
    records = list(daemon.records)
    away = sum(record["event"] == "redis.away" for record in records)
    back = sum(record["event"] == "redis.back" for record in records)
    # A busy machine may hold the event loop up for a second, which is told too.
    grave = [record for record in records if record.get("level", "info") != "info" and record["event"][:5] != "loop."]
    return away, back, len(grave)


def told_since(daemon: Daemon, event: str, count: int) -> list[dict[str, Any]]:
    return daemon.of(event)[count:]


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "OOM"])
def test_a_daemon_waits_through_it_says_so_once_and_goes_on_by_itself(place: Workshop, admin: Any, name: str) -> None:
    trouble, fault = TROUBLES[name]
    daemon, producer, film = place.daemons[0], place.producer, f"film during {name}"
    producer.put(film, "film")
    producer.wait(film, "processing")
    away, back, grave = lines_of(daemon)
    with trouble(place.server, admin):
        place.ledger.open(film)
        eventually(lambda: told_since(daemon, "redis.away", away), f"redis.away\n{daemon.log}")
    # What was done meanwhile counts, and what comes next is done.
    job = producer.wait(film)
    assert (job["status"], job["result"], job["attempts"], job["fence"]) == ("completed", '"done"', "1", "1")
    assert producer.run(f"after {name}", "quick")["status"] == "completed"
    eventually(lambda: told_since(daemon, "redis.back", back), f"redis.back\n{daemon.log}")
    told = told_since(daemon, "redis.away", away)
    assert fault in [line["fault"] for line in told]
    assert REACTIONS[fault].meaning in [line["problem"] for line in told]
    # A fail-over may drop connections too; each kind is told once.
    assert len({line["fault"] for line in told}) == len(told) <= 2
    [over] = told_since(daemon, "redis.back", back)
    assert over["away"] > 0
    assert lines_of(daemon)[2] - grave == len(told), daemon.log
    assert not daemon.ended


def test_at_maxmemory_a_daemon_goes_on_as_if_nothing_were(place: Workshop, admin: Any) -> None:
    daemon, producer = place.daemons[0], place.producer
    away = len(daemon.of("redis.away"))
    for job_id in ("waits", "runs"):
        producer.put(job_id, "film")
    producer.wait("runs", "processing")
    with full(place.server, admin):
        place.ledger.open("runs")
        place.ledger.open("waits")
        assert producer.wait("runs")["status"] == producer.wait("waits")["status"] == "completed"
    assert len(daemon.of("redis.away")) == away


def test_forgotten_scripts_and_a_single_reset_are_nothing_to_speak_of(place: Workshop, admin: Any) -> None:
    daemon = place.daemons[0]
    away = len(daemon.of("redis.away"))
    admin.script_flush()
    drop_clients(admin)
    assert place.producer.run("after a reset", "quick")["status"] == "completed"
    assert len(daemon.of("redis.away")) == away


@NEWEST_ONLY
def test_a_redis_that_loads_its_data_is_waited_for(redis_server: RedisServer, tmp_path: Path) -> None:
    server = RedisServer(redis_server.binary, "--appendonly", "yes", "--appendfsync", "always")
    with server, workshop(server, tmp_path, HANDLERS) as place:
        daemon, producer = place.start(), place.producer
        producer.put("film", "film")
        producer.wait("film", "processing")
        producer.redis.mset({f"ballast{number}": number for number in range(20_000)})
        producer.redis.bgrewriteaof()
        eventually(lambda: producer.redis.info("persistence")["aof_rewrite_in_progress"] == 0)
        server.kill()
        daemon.wait_for("redis.away", fault="down")
        server.start("--key-load-delay", "100")  # µs for each of 20,000 keys
        place.ledger.open("film")
        job = producer.wait("film")
        assert (job["status"], job["attempts"], job["fence"]) == ("completed", "1", "1")
        daemon.wait_for("redis.back")
        assert len(daemon.of("redis.away")) == len(daemon.of("redis.back")) == 1


def test_a_wrong_password_is_tried_seldom(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        admin = place.producer.redis
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
        daemon = place.start(redis_username="app", redis_password="pw")

        def attempts() -> int:
            return int(admin.info("stats")["total_connections_received"])

        with another_password(server, admin):
            # The first tries of each part are close together, and are not what is measured.
            before = attempts()
            daemon.wait_for("redis.away", fault="denied")
            eventually(lambda: attempts() - before >= 15, timeout=30)
            began, before = time.monotonic(), attempts()
            eventually(lambda: attempts() - before >= 10, timeout=30)
            rate = (attempts() - before) / (time.monotonic() - began)
        assert rate < 3, f"{rate:.1f} attempts a second"
        daemon.wait_for("redis.back")
        assert len(daemon.of("redis.away")) == 1


def test_a_daemon_without_the_password_waits_for_it_and_starts(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        place.producer.redis.config_set("requirepass", "secret")
        daemon = place.daemon().start(ready=False)
        told = daemon.wait_for("redis.away", fault="denied")
        assert told["problem"] == "Redis refuses us: check the password and the ACL"
        place.producer.redis.config_set("requirepass", "")
        daemon.wait_for("daemon.ready")
        daemon.wait_for("redis.back")
