"""Redis as others run it: behind Sentinels, in a Cluster, with TLS, with few rights, with commands taken away."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from jobqd import SyncQueue
from jobqd.client import Queue
from jobqd.clock import SystemClock
from jobqd.errors import ConfigError, StoreError, StoreFault
from jobqd.keys import Keys, Seat
from jobqd.store import Link, SyncLink, Target, running
from jobqd.store.resolve import slot_of
from jobqd.store.tracking import TrackedLink
from tests.integration.test_heartbeat import Heart
from tests.redis_server import VERSIONS, RedisServer, binaries
from tests.support import sentinel as watching
from tests.support.cluster import Cluster, cluster
from tests.support.daemon import ROOT, Application, Daemon
from tests.support.lab import order
from tests.support.sentinel import PASSWORD, WATCHWORD, Watched, watched
from tests.support.servers import newest_binary, newest_server
from tests.support.tcp import TcpServer
from tests.support.tls import Authority
from tests.support.waiting import eventually
from tests.support.workshop import workshop

HANDLERS = """
@handlers.job("film")
async def film(job: Job):
    ledger.note("film", job.id, job.fence)
    await job.progress(10, step="begun")
    await ledger.gate("film")
    return "done"

@handlers.job("quick")
async def quick(job: Job):
    await job.save_checkpoint({"at": 1})
    return "done"

@handlers.job("again", retry_delay="10ms")
async def again(job: Job):
    if job.attempt == 1:
        raise ValueError("once")

@handlers.job("hopeless")
async def hopeless():
    raise Fail("for good")
"""
LEASE = 1.0


@pytest.fixture
def application(tmp_path: Path) -> Application:
    return Application(tmp_path, HANDLERS)


def program(name: str, *arguments: str, cwd: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run `jobqd` or `jobq` to its end."""
    module = {"jobqd": "jobqd.cli.daemon", "jobq": "jobqd.cli.jobq"}[name]
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JOBQD_")},
        "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}",
        **{f"JOBQD_{name.upper()}": str(value) for name, value in settings.items()},
    }
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


def findings(cwd: Path, **settings: object) -> dict[str, dict[str, Any]]:
    """Return what `jobqd check` finds, by subject."""
    report = json.loads(program("jobqd", "check", "--json", cwd=cwd, **settings).stdout)
    return {finding["subject"]: finding for finding in report["findings"]}


# --------------------------------------------------------------------------------------------------------- Sentinel


@pytest.fixture
def films(tmp_path: Path) -> Iterator[Watched]:
    """For tests that end the master."""
    with watched(newest_binary(), tmp_path) as made:
        yield made


def test_a_failover_costs_no_job_and_no_attempt(films: Watched, application: Application, capsys: Any) -> None:
    settings = {"redis_password": PASSWORD, "lease": f"{LEASE}s"}
    with (
        Daemon(application, films.url, "", "--instance", "a", **settings) as a,
        Daemon(application, films.url, "", "--instance", "b", **settings) as b,
        SyncQueue.from_url(films.url, password=PASSWORD, retry_for="20s") as queue,
    ):
        film = queue.enqueue("film", id="film")
        application.ledger.wait_for("film film 1")
        films.wait_until_replicated()
        died = time.monotonic()
        films.master.kill()
        job = queue.enqueue("quick")
        accepted = time.monotonic() - died
        assert job.result("20s") == "done"
        served = time.monotonic() - died
        with capsys.disabled():
            print(f"\nfail-over by Sentinel: a job accepted after {accepted:.1f} s, completed after {served:.1f} s")
        # By now the lease of the film has run out, and nobody had the right to take it.
        application.ledger.open("film")
        assert film.result("10s") == "done"
        info = film.info()
        assert (info.attempts, info.fields["fence"]) == (1, "1")
        assert "crashes" not in info.fields
        for daemon in (a, b):
            assert not daemon.of("job.recovered") + daemon.of("job.refused")
            assert len(daemon.of("redis.away")) <= 1, daemon.log
            daemon.wait_for("redis.back")
            assert daemon.stop() == 0
            assert PASSWORD not in daemon.log
            assert WATCHWORD not in daemon.log
    assert served < 15


async def test_a_claim_lost_in_a_failover_gives_its_result_to_nobody(films: Watched) -> None:
    keys, link = Keys(), SyncLink(Target(films.url, password=PASSWORD))
    heart = Heart(Target(films.url, password=PASSWORD), keys, lease=0.5, clock=SystemClock())
    await heart.earn()
    with SyncQueue.from_url(films.url, password=PASSWORD, retry_for="20s") as queue:
        queue.enqueue("quick", id="x")
        films.wait_until_replicated()
        films.replica.freeze()
        with films.client(films.master) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        claim = running.claim(Seat(keys, "w1", 15.0), 1, 1, 86400.0, {"quick": -1})
        (lost,) = link.run(claim).jobs
        films.master.kill()
        films.replica.thaw()
        films.wait_for_failover()
        queue.enqueue("quick", id="y")  # returns once the new master is known
        # A daemon that could judge others' leases may not do so on the new master until it has earned it there.
        eventually(lambda: heart.heart.beat_once() == pytest.approx(0.5 / 3), "a beat that the new master took")
        assert not heart.heart.trust.earned(time.monotonic())
        await heart.earn()
        heart.heart.stop()

        other = SyncLink(Target(films.url, password=PASSWORD))
        (found,) = other.run(running.claim(Seat(keys, "w2", 15.0), 1, 1, 86400.0, {"quick": -1})).jobs
        # The same number: the fence alone would let the first one's result in.
        assert (found.id, found.fence) == (lost.id, lost.fence) == ("x", 1)
        stale = order(lost, worker="w1", result='"stale"')
        fresh = order(found, worker="w2", result='"fresh"')
        settle = {"dead_max": 100, "trimmed_ttl": 60.0}
        with pytest.raises(StoreError):
            link.run(running.settle(keys, [stale], **settle))  # its connection died with the master
        assert link.run(running.settle(keys, [stale], **settle)) == ["stale"]
        assert other.run(running.settle(keys, [fresh], **settle)) == ["ok"]
        assert queue.job("x").result() == "fresh"
        link.close()
        other.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """For tests that leave the master alone."""
    with watched(newest_binary(), tmp_path_factory.mktemp("s")) as made:
        yield made


async def test_a_sentinel_that_does_not_answer_is_passed_over(calm: Watched) -> None:
    hosts = ",".join(["127.0.0.1:1", *(f"127.0.0.1:{one.port}" for one in calm.sentinels)])
    link = Link(Target(f"redis+sentinel://:{PASSWORD}@{hosts}/{watching.SERVICE}?sentinel_password={WATCHWORD}"))
    assert (await link.command("ROLE"))[0] == "master"
    assert link.server == f"127.0.0.1:{calm.master.port}"
    await link.close()


@pytest.mark.parametrize(
    ("service", "password", "fault", "words"),
    [
        ("nobody", WATCHWORD, StoreFault.DOWN, ["nobody", "watches over no master of that name"]),
        (watching.SERVICE, "wrong-one", StoreFault.DENIED, ["sentinel_password"]),
    ],
)
async def test_sentinels_that_cannot_help_are_named(
    calm: Watched, service: str, password: str, fault: StoreFault, words: list[str]
) -> None:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in calm.sentinels)
    target = Target(f"redis+sentinel://{hosts}/{service}?sentinel_password={password}", password=PASSWORD)
    for error in await failures(target):
        assert error.fault is fault
        assert all(word in str(error) for word in [*words, *(str(one.port) for one in calm.sentinels)])
        assert "wrong-one" not in str(error)


async def test_a_replica_is_never_taken_for_the_master(calm: Watched) -> None:
    """What a Sentinel says that has not heard of a fail-over yet: here it watches over the replica as a master."""
    with calm.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "MONITOR", "stale", "127.0.0.1", calm.replica.port, 2)
        client.execute_command("SENTINEL", "SET", "stale", "auth-pass", PASSWORD)
    target = Target(
        f"redis+sentinel://127.0.0.1:{calm.sentinels[0].port}/stale?sentinel_password={WATCHWORD}", password=PASSWORD
    )
    for error in await failures(target):
        assert error.fault is StoreFault.READONLY
        assert "is a slave: a fail-over is under way" in str(error)


async def failures(target: Target) -> list[StoreError]:
    """Return the error of a link of each kind."""
    with pytest.raises(StoreError) as asynchronous:
        await Link(target).command("PING")
    with pytest.raises(StoreError) as synchronous:
        SyncLink(target).command("PING")
    return [asynchronous.value, synchronous.value]


async def test_a_redirect_never_names_a_client_of_another_server(own_server: RedisServer) -> None:
    """Between the two connections of a wake-up the master may change; an id that exists there is somebody else's."""
    with newest_server() as other:

        class Wandering(Target):
            async def connect(self) -> Any:
                self.turns = getattr(self, "turns", 0) + 1
                return await (Target(other.url) if self.turns == 2 else Target(own_server.url)).connect()

        link = TrackedLink(
            Wandering(own_server.url), "job_queue", "control", on_change=lambda: None, on_control=lambda _: None
        )
        with pytest.raises(StoreError, match="master changed") as error:
            await link.command("PING")
        assert error.value.fault is StoreFault.READONLY
        assert await link.command("PING") == "PONG"
        assert await link.healthy()
        await link.close()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("NOREPLICAS Not enough good replicas to write.", False), ("CLUSTERDOWN The cluster is down", False),
        ("READONLY You can't write against a read only replica.", False),
        ("MASTERDOWN Link with MASTER is down", False),
        ("MOVED 1 127.0.0.1:1", False), ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("MISCONF Redis is configured to save RDB snapshots", True),
        ("ERR Script attempted to access a non local key in a cluster node", True),
    ],
)  # fmt: skip
async def test_what_another_server_could_do_ends_the_connection(link: Link, answer: str, kept: bool) -> None:
    with pytest.raises(StoreError) as error:
        await link.command("EVAL", "return redis.error_reply(ARGV[1])", 0, answer)
    assert error.value.transient
    assert link.connected is kept


def test_check_tells_which_server_sentinel_named(calm: Watched, application: Application) -> None:
    found = findings(application.directory, redis_url=calm.url, redis_password=PASSWORD)
    assert found["redis"]["ok"] is True
    assert f"127.0.0.1:{calm.master.port}" in found["redis"]["message"]
    assert found["wake-up"]["ok"] is True
    assert found["scripts"]["ok"] is True


# ---------------------------------------------------------------------------------------------------------- Cluster

PREFIX = "{films}:"
SLOT = slot_of("films")


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with cluster(newest_binary()) as made:
        yield made


def not_the_owner_first(nodes: Cluster) -> str:
    """Return a URL in which the first host is not the one that serves the queue."""
    numbers = sorted(range(3), key=lambda number: number == nodes.owner(SLOT))
    return "redis+cluster://" + ",".join(f"127.0.0.1:{nodes.nodes[number].port}" for number in numbers)


def tracked(nodes: Cluster, number: int) -> list[Any]:
    """Return the connections of a node that are told of changes."""
    return [one for one in nodes.clients[number].client_list() if int(one.get("redir", -1)) > 0]


def test_a_queue_in_a_cluster_lives_on_the_node_of_its_slot(three: Cluster, application: Application) -> None:
    url = not_the_owner_first(three)
    with (
        Daemon(application, url, PREFIX) as daemon,
        SyncQueue.from_url(url, key_prefix=PREFIX) as queue,
    ):
        assert queue.enqueue("quick").result("10s") == "done"
        assert queue.enqueue("again").result("10s") is None
        owner = three.clients[three.owner(SLOT)]
        owner.hset(f"{PREFIX}job:raw", mapping={"status": "queued", "type": "quick"})
        owner.zadd(f"{PREFIX}job_queue", {"raw": 10})
        assert queue.job("raw").result("10s") == "done"
        assert tracked(three, three.owner(SLOT))
        assert not daemon.of("wakeup.polling") + daemon.of("redis.away")
        assert daemon.stop() == 0


def test_a_slot_that_moves_takes_its_daemon_and_its_jobs_along(three: Cluster, application: Application) -> None:
    url, source = not_the_owner_first(three), three.owner(SLOT)
    target = (source + 1) % 3
    with (
        Daemon(application, url, PREFIX, lease=f"{LEASE}s") as daemon,
        SyncQueue.from_url(url, key_prefix=PREFIX, retry_for="20s") as queue,
    ):
        film = queue.enqueue("film", id="film")
        application.ledger.wait_for("film film 1")
        three.start_move(SLOT, target)
        three.move_keys(SLOT, target, f"{PREFIX}job:film", f"{PREFIX}job_queue:active")
        # Half of the queue is here and half there: nothing can be done but wait.
        application.ledger.open("film")
        daemon.wait_for("redis.away")
        three.move_keys(SLOT, target)
        three.end_move(SLOT, target)
        assert film.result("20s") == "done"
        info = film.info()
        assert (info.attempts, info.fields["fence"]) == (1, "1")
        assert "crashes" not in info.fields
        assert queue.enqueue("quick").result("10s") == "done"
        eventually(lambda: tracked(three, target), "the new owner wakes the daemon up")
        assert not daemon.of("job.recovered") + daemon.of("job.refused")
        assert daemon.stop() == 0


@pytest.mark.parametrize("made", [Queue, SyncQueue])
def test_a_prefix_without_a_hash_tag_is_refused_on_a_cluster(made: Any) -> None:
    with pytest.raises(ConfigError, match=r"key_prefix .* in braces"):
        made.from_url("redis+cluster://localhost:7000", key_prefix="films:")


async def test_a_server_that_is_no_cluster_says_so(own_server: RedisServer) -> None:
    with TcpServer(own_server.binary) as server:
        link = Link(Target(f"redis+cluster://127.0.0.1:{server.port}", prefix=PREFIX))
        with pytest.raises(StoreError, match="cluster support disabled") as error:
            await link.command("PING")
    assert error.value.fault is StoreFault.DOWN


async def test_moved_names_the_code_that_redis_py_cuts_off(three: Cluster) -> None:
    stranger = three.nodes[(three.owner(SLOT) + 1) % 3]
    link = Link(Target(f"redis://127.0.0.1:{stranger.port}"))
    with pytest.raises(StoreError, match=f"MOVED {SLOT} ") as error:
        await link.command("GET", PREFIX)
    assert error.value.fault is StoreFault.READONLY
    assert not link.connected


# -------------------------------------------------------------------------------------------------------------- ACL

USERS = ("producer", "daemon", "reader")


@pytest.fixture(params=VERSIONS, ids=[f"redis-{version}" for version in VERSIONS])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server with the users of config/redis-acl.conf; the default user, whom only the test is, may do all."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no redis-server {request.param} on this machine")
    text = (ROOT / "config/redis-acl.conf").read_text()
    for user in USERS:
        text = text.replace(f"HASH_OF_{user.upper()}_PASSWORD", hashlib.sha256(f"{user}-pass".encode()).hexdigest())
    (tmp_path / "acl.conf").write_text(text)
    with RedisServer(binary, "--include", str(tmp_path / "acl.conf")) as server:
        yield server


def login(user: str) -> dict[str, str]:
    return {"redis_username": f"jobqd-{user}", "redis_password": f"{user}-pass"}


def queue_of(server: RedisServer, user: str) -> SyncQueue:
    return SyncQueue.from_url(server.url, username=f"jobqd-{user}", password=f"{user}-pass")


def refusals(client: redis.Redis) -> list[Any]:
    """Return what was refused so far: the user and what for."""
    return [(entry["username"], entry["object"]) for entry in client.acl_log()]


def test_every_user_does_its_work_with_the_rights_it_has(guarded: RedisServer, tmp_path: Path) -> None:
    with workshop(guarded, tmp_path, HANDLERS) as place, queue_of(guarded, "producer") as queue:
        raw = place.producer.redis
        # Left by a daemon that is gone, so that recovering and the slow walk have work too.
        lapsed = place.producer.put("lapsed", "quick", created_at=1, fence=1, worker="gone", status="processing")
        raw.zrem("job_queue", lapsed)
        raw.zadd("job_queue:active", {lapsed: 1})
        daemon = place.start(**login("daemon"), lease="500ms")
        assert queue.enqueue("quick", delay="10ms").result("10s") == "done"
        assert queue.enqueue("again").result("10s") is None
        hopeless = queue.enqueue("hopeless")
        eventually(lambda: hopeless.status() == "failed")
        plain = SyncLink(Target(guarded.url, username="jobqd-producer", password="producer-pass"))
        plain.command("HSET", "job:raw", "status", "queued", "created_at", 1, "type", "quick")
        plain.command("ZADD", "job_queue", 10, "raw")
        plain.close()
        assert queue.job("raw").result("10s") == "done"
        assert queue.job("raw").info().attempts == 1
        daemon.wait_for("job.recovered", job_id="lapsed")
        film = queue.enqueue("film", id="film")
        assert next(iter(film.updates())).status in ("queued", "processing")
        place.ledger.open("film")
        look = {"cwd": tmp_path, "redis_url": guarded.url, **login("reader")}
        assert json.loads(program("jobq", "stats", "--json", **look).stdout)["daemons"]
        assert "hopeless" in program("jobq", "list", **look).stdout
        assert program("jobq", "show", "film", **look).returncode == 0
        assert program("jobq", "watch", "film", "--json", **look).returncode == 0
        assert daemon.stop() == 0, daemon.log
        assert program("jobqd", "run", "--burst", cwd=tmp_path, redis_url=guarded.url, runtime_dir=tmp_path / "r",
                       **login("daemon")).returncode == 0  # fmt: skip
        assert refusals(raw) == []
        assert not daemon.of("wakeup.polling") + daemon.of("redis.away") + daemon.of("redis.warning", subject="redis")


def test_check_as_the_daemon_finds_what_it_needs(guarded: RedisServer, application: Application) -> None:
    found = findings(application.directory, redis_url=guarded.url, **login("daemon"))
    assert {"redis": True, "scripts": True, "wake-up": True}.items() <= {k: f["ok"] for k, f in found.items()}.items()
    poor = findings(application.directory, redis_url=guarded.url, **login("reader"))
    assert poor["scripts"]["ok"] is False
    assert "evalsha" in poor["scripts"]["message"]
    assert poor["wake-up"]["ok"] is None
    assert "polling" in poor["wake-up"]["message"]


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        ("producer", ["DEL job:x", "FLUSHALL", "KEYS *", "SET job_queue x", "HSET other a 1", "CONFIG GET dir",
                      "PUBLISH job_queue:control x", "SUBSCRIBE other"]),
        ("daemon", ["FLUSHALL", "KEYS *", "SET other x", "CONFIG GET dir", "CLIENT LIST", "PUBLISH other x"]),
        ("reader", ["HSET job:x a 1", "ZADD job_queue 1 x", "DEL job:x", "SET job_queue x", "EVAL 'return 1' 0",
                    "HGETALL other", "PUBLISH job:progress:x y", "INFO", "FLUSHALL"]),
    ],
)  # fmt: skip
def test_nobody_may_do_more(guarded: RedisServer, user: str, commands: list[str]) -> None:
    link = SyncLink(Target(guarded.url, username=f"jobqd-{user}", password=f"{user}-pass"))
    for command in commands:
        with pytest.raises(StoreError) as error:
            link.command(*command.replace("'", "").split(" "))
        assert error.value.fault is StoreFault.DENIED, f"{command}: {error.value}"
    # Being refused a command is no reason to log in again.
    assert link.generation == 1
    link.close()


def test_what_the_reader_may_not_do_is_told_in_one_line(guarded: RedisServer, tmp_path: Path) -> None:
    done = program("jobq", "enqueue", "film", cwd=tmp_path, redis_url=guarded.url, **login("reader"))
    assert done.returncode == 78
    assert "refuses us" in done.stderr
    assert "reader-pass" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ restricted servers


def test_a_server_without_client_config_and_info_is_polled(tmp_path: Path) -> None:
    taken = [word for command in ("CLIENT", "CONFIG", "INFO") for word in ("--rename-command", command, "")]
    with newest_server(*taken) as server, workshop(server, tmp_path, HANDLERS) as place:
        daemon = place.start(lease="500ms")
        for number in range(3):
            assert place.producer.run(f"job{number}", "quick")["status"] == "completed"
        place.producer.put("film", "film")
        place.ledger.wait_for("film film 1")
        # A cancel is heard of all the same: only what needs CLIENT is missing.
        with SyncQueue.from_url(server.url) as queue:
            queue.job("film").cancel()
        daemon.wait_for("job.cancelled")
        assert len(daemon.of("wakeup.polling")) == 1
        assert len(daemon.of("redis.warning")) == 1
        assert not daemon.of("redis.away")
        found = findings(tmp_path, redis_url=server.url)
        assert (found["wake-up"]["ok"], found["scripts"]["ok"]) == (None, True)
        assert "CLIENT" in found["wake-up"]["message"]
        assert daemon.stop() == 0


# -------------------------------------------------------------------------------------------------------------- TLS


@contextmanager
def tls_server(authority: Authority, subjects: str, *, ask_clients: bool = False) -> Iterator[TcpServer]:
    """A server that speaks TLS and nothing else on its port."""
    binary = newest_binary()
    if b"tls-cert-file" not in binary.read_bytes():
        pytest.skip(f"{binary} was built without TLS")
    certificate, key = authority.issue("server", subjects)
    server = TcpServer(binary)
    try:
        server.start(
            "--port", "0", "--tls-port", str(server.port), "--tls-cert-file", str(certificate),
            "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.certificate),
            "--tls-auth-clients", "yes" if ask_clients else "no",
        )  # fmt: skip
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ours")


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[TcpServer]:
    with tls_server(authority, "DNS:localhost") as server:
        yield server


def test_tls_with_a_private_authority(secure: TcpServer, authority: Authority, application: Application) -> None:
    url, ca = f"rediss://localhost:{secure.port}", str(authority.certificate)
    with Daemon(application, url, tls_ca=ca) as daemon, SyncQueue.from_url(url, tls_ca=ca) as queue:
        assert queue.enqueue("quick").result("10s") == "done"
        assert not daemon.of("wakeup.polling")
        assert daemon.stop() == 0


async def test_a_server_that_asks_for_our_certificate(authority: Authority, application: Application) -> None:
    certificate, key = authority.issue("client", "DNS:worker")
    ca = str(authority.certificate)
    # What Redis does unless tls-auth-clients is set.
    with tls_server(authority, "DNS:localhost", ask_clients=True) as server:
        url = f"rediss://localhost:{server.port}"
        with pytest.raises(StoreError) as refused, SyncQueue.from_url(url, tls_ca=ca, retry_for=0) as queue:
            queue.enqueue("quick")
        assert refused.value.fault is StoreFault.TLS
        assert "add ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key to redis_url" in str(refused.value)
        url += f"?ssl_certfile={certificate}&ssl_keyfile={key}"
        with Daemon(application, url, tls_ca=ca) as daemon, SyncQueue.from_url(url, tls_ca=ca) as queue:
            assert queue.enqueue("quick").result("10s") == "done"
            assert not daemon.of("wakeup.polling")


async def test_a_certificate_of_another_authority_names_tls_ca(secure: TcpServer, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").certificate
    for ca in (str(other), None):
        for error in await failures(Target(f"rediss://localhost:{secure.port}", tls_ca=ca)):
            assert error.fault is StoreFault.TLS
            assert "certificate verify failed" in str(error)
            assert "tls_ca" in str(error)


async def test_a_certificate_for_another_name_says_so(secure: TcpServer, authority: Authority) -> None:
    for error in await failures(Target(f"rediss://127.0.0.1:{secure.port}", tls_ca=str(authority.certificate))):
        assert error.fault is StoreFault.TLS
        assert "127.0.0.1" in str(error)
        assert "redis_url must name the server as its certificate does" in str(error)


async def test_tls_to_a_port_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_TIMEOUT", "REPLY_TIMEOUT"):
        monkeypatch.setattr(f"jobqd.store.connect.{name}", 0.3)
    with TcpServer(newest_binary()) as server:
        for error in await failures(Target(f"rediss://localhost:{server.port}")):
            assert error.fault is StoreFault.DOWN
            assert "redis:// for rediss://" in str(error)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("/nowhere.pem", "server.key", "ssl_certfile=/nowhere.pem cannot be read: No such file or directory"),
        ("server.pem", "ca.key", "must name PEM files with a certificate and the key to it"),
        ("server.key", "server.key", "must name PEM files with a certificate and the key to it"),
    ],
)
def test_a_certificate_of_ours_that_cannot_be_used(
    secure: TcpServer, authority: Authority, tmp_path: Path, certificate: str, key: str, said: str
) -> None:
    directory = authority.certificate.parent
    options = f"ssl_certfile={directory / certificate}&ssl_keyfile={directory / key}"
    url = f"rediss://localhost:{secure.port}?{options}"
    done = program("jobq", "stats", cwd=tmp_path, redis_url=url, tls_ca=authority.certificate)
    assert done.returncode == 78
    assert said in done.stderr


def test_tls_that_cannot_be_trusted_ends_jobq_with_the_remedy(secure: TcpServer, tmp_path: Path) -> None:
    done = program("jobq", "stats", cwd=tmp_path, redis_url=f"rediss://localhost:{secure.port}")
    assert done.returncode == 78
    assert "tls_ca" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------------------------------- passwords

SECRET = "s3cret%2Fword"
"""In a URL; what it stands for is another text that must not be seen."""
SEEN = ("s3cret", "s3cret%2Fword", "s3cret/word")


def hides(*texts: str) -> bool:
    return not any(secret in text for secret in SEEN for text in texts)


def test_a_password_from_a_credential_is_seen_nowhere(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "redis_password").write_text("s3cret/word")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    with newest_server() as server:
        with redis.Redis(unix_socket_path=str(server.socket)) as admin:
            admin.config_set("requirepass", "s3cret/word")
        with Daemon(application, server.url, log_level="debug") as daemon:
            for pid in (daemon.pid, *children(daemon.pid)):
                for file in ("cmdline", "environ"):
                    assert hides(Path(f"/proc/{pid}/{file}").read_bytes().decode(errors="replace"))
            server.kill()
            daemon.wait_for("redis.away")
            server.start()
            with redis.Redis(unix_socket_path=str(server.socket)) as admin:
                admin.config_set("requirepass", "another")
            assert daemon.stop() == 0
            assert hides(daemon.log)
        for arguments in (["check"], ["check", "--json"]):
            shown = program("jobqd", *arguments, cwd=tmp_path, redis_url=server.url)
            assert "(hidden)" in shown.stdout
            assert "invalid" in shown.stdout
            assert hides(shown.stdout, shown.stderr)
        asked = program("jobq", "stats", cwd=tmp_path, redis_url=server.url)
        assert asked.returncode == 78
        assert hides(asked.stdout, asked.stderr)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@127.0.0.1:1",
        f"redis+sentinel://:{SECRET}@127.0.0.1:1/films?sentinel_password={SECRET}",
        f"redis+cluster://:{SECRET}@127.0.0.1:1",
        f"rediss://:{SECRET}@127.0.0.1:1",
    ],
)
def test_a_password_in_the_url_is_seen_nowhere(application: Application, tmp_path: Path, url: str) -> None:
    settings = {"redis_url": url, "key_prefix": "{a}:"}
    shown = program("jobqd", "check", cwd=tmp_path, **settings)
    asked = program("jobq", "stats", cwd=tmp_path, **settings)
    assert (shown.returncode, asked.returncode) == (69, 69), shown.stdout + shown.stderr + asked.stderr
    assert hides(shown.stdout, shown.stderr, asked.stdout, asked.stderr)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://:s3cret/word@localhost:6379", "percent-encoded"),
        ("redis://:s3cret#word@localhost:6379", "percent-encoded"),
        (f"redis://:{SECRET}@localhost:port", "HOST:PORT"),
        (f"redis://:{SECRET}@localhost:6379?no_such_option=s3cret", "not known"),
        (f"redis+sentinel://:{SECRET}@localhost/name?tls=s3cret", "true or false"),
        (f"redis+sentinel://localhost/name?sentinel_password={SECRET}&socket_timeout=s3cret", "no such value"),
    ],
)
def test_an_error_in_the_url_shows_no_password(url: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^redis_url: ") as error:
        Target(url)
    assert problem in str(error.value)
    assert hides(str(error.value), repr(error.value.__cause__))
    done = program("jobqd", "check", cwd=tmp_path, redis_url=url)
    assert done.returncode == 78
    assert hides(done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


def test_a_password_for_sentinels_is_refused_on_a_command_line(tmp_path: Path) -> None:
    url = f"redis+sentinel://localhost/films?sentinel_password={SECRET}"
    done = program("jobqd", "check", "--redis-url", url, cwd=tmp_path)
    assert done.returncode == 78
    assert "every user of this machine can read a command line" in done.stderr
    assert hides(done.stdout, done.stderr)
