"""Faults of Redis itself: it stalls, dies, forgets, is full, or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqd.errors import EnqueueRefused
from tests.fault.laboratory import Laboratory, laboratory_on, release, server_for
from tests.redis_server import RedisServer
from tests.support.waiting import eventually

MakeLaboratory = Callable[..., Laboratory]
AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


def connection(server: RedisServer) -> redis.Redis:
    """Return a client that waits as long as it takes: by default redis-py sends a slow command again."""
    return redis.Redis(
        unix_socket_path=str(server.socket), decode_responses=True, socket_timeout=None, retry=Retry(NoBackoff(), 0)
    )


def long(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("seconds", "lease"), [long(1.5, "500ms"), long(6, "15s"), long(12, "15s"), long(60, "15s")]
)  # fmt: skip
def test_row_09_redis_stalls(lab: Laboratory, seconds: float, lease: str) -> None:
    lab.start("a", lease=lease)
    lab.start("b", lease=lease)
    lab.put(16, "gated")
    lab.wait_started(16)
    stalled = threading.Thread(target=lambda: connection(lab.server).execute_command("DEBUG", "SLEEP", seconds))
    stalled.start()
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    stalled.join(seconds + 10)
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 9", f"DEBUG SLEEP {seconds}, lease {lease}", duplicates=0, bound=8)
    assert all("crashes" not in lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_09_redis_away_for_longer_than_a_lease(lab: Laboratory) -> None:
    daemons = [lab.start(instance, lease="400ms") for instance in "ab"]
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.server.freeze()
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    lab.hold(1.2)
    lab.server.thaw()
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 9 away", "SIGSTOP of Redis for three leases, results waiting", duplicates=0, bound=8)
    assert not any(daemon.of("job.refused") for daemon in daemons)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_10_writes_paused(lab: Laboratory) -> None:
    lab.start("a", lease="400ms")
    lab.start("b", lease="400ms")
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.redis.execute_command("CLIENT", "PAUSE", 1200, "WRITE")
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    lab.wait_ended()
    lab.check("row 10", "CLIENT PAUSE 1200 WRITE, lease 0.4 s", duplicates=0)


@pytest.mark.each_redis
def test_row_15_redis_killed_and_restarted(make: MakeLaboratory) -> None:
    lab = make(*AOF)
    lab.start(lease="1s")
    for _ in range(3):
        lab.put(100, "effect", seconds="0.05")
        lab.wait_started(lab.ledger.count("start") + 20)
        lab.server.kill()
        lab.server.start()
        lab.outage_over()
    lab.wait_ended()
    lab.check("row 15 killed", "kill -9 of Redis 3 times, AOF everysec", duplicates=0, bound=3)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_15_power_loss(make: MakeLaboratory) -> None:
    lab = make(*AOF)
    daemon = lab.start(lease="1s")
    before = lab.put(50, "effect", seconds="0.02")
    lab.wait_ended()
    kept = aof(lab).stat().st_size
    lab.put(200, "effect", seconds="0.02")
    lab.wait_started(100)
    lab.server.kill()
    # What was written in the last moment never reached the disk; the last command is torn.
    size = aof(lab).stat().st_size
    os.truncate(aof(lab), kept + (size - kept) // 2 + 1)
    lab.server.start()
    lab.outage_over()
    left = {job_id for job_id in lab.acknowledged if lab.redis.exists(lab.keys.job(job_id))}
    lab.wait_ended(left)
    figures = lab.check(
        "row 15 power", f"half of the last AOF writes gone, {len(lab.acknowledged) - len(left)} jobs with them",
        lossy=True,
    )  # fmt: skip
    assert left >= set(before)
    assert figures.jobs > len(left), "nothing was lost: the fault did not strike"
    assert not daemon.of("daemon.crashed")


def aof(lab: Laboratory) -> Path:
    files = [*lab.server.directory.glob("appendonlydir/*.incr.aof"), *lab.server.directory.glob("appendonly.aof")]
    return files[0]


@pytest.mark.each_redis
def test_row_16_scripts_flushed_all_the_time(lab: Laboratory) -> None:
    daemon = lab.start()
    lab.put(200, "effect", seconds="0.05")
    flushes = 0
    while lab.ledger.count("end") < 200:
        lab.redis.script_flush()
        flushes += 1
        lab.hold(0.02)
    lab.wait_ended()
    lab.check("row 16", f"{flushes} times SCRIPT FLUSH", duplicates=0)
    assert not daemon.of("redis.away")


@pytest.mark.each_redis
def test_row_17_redis_is_full(lab: Laboratory) -> None:
    daemon = lab.start(lease="1s")
    lab.put(16, "gated")
    ready = lab.put(50)
    lab.wait_started(16)
    # Well under: the buffers of connections that come and go are counted too.
    lab.redis.config_set("maxmemory", int(lab.redis.info("memory")["used_memory"]) // 2)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        lab.shop.producer.put("refused", "effect")
    with pytest.raises(EnqueueRefused, match="memory"):
        asyncio.run(enqueue(lab))
    lab.gates.open("gate")
    lab.wait_ended()
    lab.redis.config_set("maxmemory", 0)
    lab.check("row 17", f"maxmemory under used; 16 ran, {len(ready)} waited", duplicates=0)
    assert not daemon.of("job.refused")


async def enqueue(lab: Laboratory) -> None:
    async with lab.queue() as queue:
        await queue.enqueue("effect")


@pytest.mark.long
@pytest.mark.each_redis
def test_row_18_an_evicting_redis_is_refused_at_the_start(make: MakeLaboratory) -> None:
    lab = make("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    daemon = lab.daemon().start(ready=False)
    assert daemon.wait() == 78
    assert "allow_eviction" in daemon.log
    lab.start(allow_eviction="true")


@pytest.mark.long
@pytest.mark.each_redis
def test_row_18_a_policy_that_becomes_evicting_is_told(lab: Laboratory) -> None:
    daemon = lab.start()
    lab.redis.config_set("maxmemory", "100mb")
    lab.redis.config_set("maxmemory-policy", "allkeys-lru")
    told = daemon.wait_for("redis.evicts", timeout=15, level="critical")
    assert "allkeys-lru" in told["problem"]
    assert "noeviction" in told["problem"]
    lab.wait_ended(lab.put(5))
    lab.redis.config_set("maxmemory-policy", "noeviction")
    daemon.wait_for("redis.evicts_no_more", timeout=15)
    lab.check("row 18", "maxmemory-policy set to allkeys-lru and back", duplicates=0)
    assert len(daemon.of("redis.evicts")) == 1


@pytest.mark.long
@pytest.mark.each_redis
def test_row_19_the_disk_of_redis_is_full(version: str, tmp_path: Path) -> None:
    server = server_for(version, *AOF)
    disk = server.directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        server.close()
        pytest.skip("no right to mount a small disk")
    server.arguments += ("--dir", str(disk), "--auto-aof-rewrite-percentage", "0")
    try:
        with laboratory_on(server.start(), tmp_path) as lab:
            lab.start(lease="2s")
            lab.put(16, "gated")
            lab.wait_started(16)
            ballast = disk / "ballast"
            fill(lab, ballast)
            lab.gates.open("gate")
            eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
            lab.hold(1)
            assert lab.redis.zcard(lab.keys.active) == 16
            ballast.unlink()
            began = time.monotonic()
            lab.wait_ended()
            lab.outages.append(time.monotonic() - began)
            lab.check("row 19", "the disk of the AOF is full", duplicates=0, bound=8)
    finally:
        server.close()
        subprocess.run(["umount", disk], check=False, capture_output=True)
        shutil.rmtree(server.directory, ignore_errors=True)


def fill(lab: Laboratory, ballast: Path) -> None:
    """Take the rest of the disk and write until Redis notices that it cannot."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1000))

    def refused() -> bool:
        try:
            lab.redis.set("filler", os.urandom(5000).hex())
        except redis.ResponseError as error:
            return "MISCONF" in str(error)
        return False

    eventually(refused, "MISCONF")


@pytest.mark.long
@pytest.mark.each_redis
def test_row_20_a_redis_that_loads_for_long(make: MakeLaboratory, version: str) -> None:
    lab = make("--save", "3600 1")
    daemon = lab.start(lease="1s")
    lab.put(16, "gated")
    lab.wait_started(16)
    with lab.redis.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.set(f"ballast{number}", os.urandom(1000))
        pipe.execute()
    lab.redis.save()
    lab.server.kill()
    lab.gates.open("gate")
    # 2 s in all for 20,000 keys. Before 7.0 clients are answered each 2 MB: the ballast is larger than that.
    often = () if release(version) < (7, 0) else ("--loading-process-events-interval-bytes", "1024")
    lab.server.start("--key-load-delay", "100", *often)
    lab.redis.config_set("key-load-delay", 0)
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 20 loading", "Redis restarted, LOADING for 2 s", duplicates=0, bound=8)
    away = daemon.of("redis.away")
    assert 1 <= len(away) <= 5, away


@pytest.mark.long
@pytest.mark.each_redis
def test_row_20_a_script_without_end(make: MakeLaboratory) -> None:
    lab = make("--lua-time-limit", "100")
    daemon = lab.start(lease="5s")
    lab.put(16, "gated")
    lab.wait_started(16)

    def endless() -> None:
        with pytest.raises(redis.ResponseError):
            connection(lab.server).eval("while true do end", 0)

    busy = threading.Thread(target=endless)
    busy.start()
    lab.gates.open("gate")
    daemon.wait_for("redis.away", fault="busy")
    lab.hold(1)
    eventually(lambda: killed(lab), "SCRIPT KILL")
    busy.join(10)
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 20 busy", "an endless script, killed", duplicates=0, bound=8)
    assert len(daemon.of("redis.away")) <= 5


def killed(lab: Laboratory) -> bool:
    try:
        return bool(connection(lab.server).script_kill())
    except redis.ResponseError:
        return False


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "meaning", "order", "cure"),
    [
        ("disk", "too few replicas", ("CONFIG", "SET", "min-replicas-to-write", "1"),
         ("CONFIG", "SET", "min-replicas-to-write", "0")),
        ("readonly", "not the master", ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["noreplicas", "readonly"],
)  # fmt: skip
@pytest.mark.each_redis
def test_row_21_a_redis_that_takes_no_writes(
    lab: Laboratory, fault: str, meaning: str, order: tuple[str, ...], cure: tuple[str, ...]
) -> None:
    daemons = [lab.start(instance, lease="500ms") for instance in "ab"]
    lab.put(24, "gated")
    lab.wait_started(24)
    lab.redis.execute_command(*order)
    lab.gates.open("gate")
    told = [daemon.wait_for("redis.away", fault=fault) for daemon in daemons]
    eventually(lambda: lab.ledger.count("end") == 24, "24 results that wait")
    lab.hold(1.5)
    assert lab.redis.zcard(lab.keys.active) == 24
    lab.redis.execute_command(*cure)
    lab.outage_over()
    lab.wait_ended()
    lab.check(f"row 21 {fault}", f"{' '.join(order)} for three leases, results waiting", duplicates=0, bound=8)
    assert all(meaning in record["problem"] for record in told)
    assert all(len(daemon.of("redis.away")) <= 5 for daemon in daemons)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_22_the_password_is_changed(lab: Laboratory) -> None:
    lab.redis.execute_command("ACL", "SETUSER", "worker", "on", ">first", "~*", "&*", "+@all")
    daemon = lab.start(redis_username="worker", redis_password="first", lease="15s")
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">second")
    lab.redis.client_kill_filter(_type="normal", skipme=True)
    lab.redis.client_kill_filter(_type="pubsub", skipme=True)
    before = connections(lab)
    lab.gates.open("gate")
    told = daemon.wait_for("redis.away", fault="denied")
    lab.hold(3)
    attempts = connections(lab) - before
    lab.redis.execute_command("ACL", "SETUSER", "worker", "resetpass", ">first")
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 22", f"wrong password for 3 s, {attempts} attempts to connect", duplicates=0, bound=8)
    assert "password" in told["problem"]
    assert attempts <= 60, attempts
    assert len(daemon.of("redis.away")) <= 5


def connections(lab: Laboratory) -> int:
    return int(lab.redis.info("stats")["total_connections_received"])


@pytest.mark.long
@pytest.mark.each_redis
def test_row_22_the_acl_is_narrowed(lab: Laboratory) -> None:
    lab.redis.execute_command("ACL", "SETUSER", "worker", "on", ">first", "~*", "&*", "+@all")
    daemon = lab.start(redis_username="worker", redis_password="first")
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.redis.execute_command("ACL", "SETUSER", "worker", "-zrem")
    lab.gates.open("gate")
    told = daemon.wait_for("redis.away", fault="denied")
    assert "ACL" in told["problem"]
    lab.redis.execute_command("ACL", "SETUSER", "worker", "+@all")
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 22 ACL", "ZREM forbidden, then allowed", duplicates=0, bound=8)
