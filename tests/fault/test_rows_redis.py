"""Faults of Redis itself: it stalls, dies, forgets, is full, or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import redis

from jobqd.errors import EnqueueRefused
from tests.fault.checker import half_lost
from tests.fault.laboratory import Laboratory, laboratory_on, server_for
from tests.fault.load import LOAD
from tests.fault.scenes import MakeLaboratory, connection
from tests.support.waiting import eventually

AOF = ("--appendonly", "yes", "--appendfsync", "everysec")


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
    lab.outage()
    stalled.start()
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    stalled.join(seconds + 10)
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 9", f"DEBUG SLEEP {seconds}, lease {lease}", duplicates=0, bound=2)
    assert all("crashes" not in lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_09_redis_away_for_longer_than_a_lease(lab: Laboratory) -> None:
    daemons = [lab.start(instance, lease="400ms") for instance in "ab"]
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.outage()
    lab.server.freeze()
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    lab.hold(1.2)
    lab.server.thaw()
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 9 away", "SIGSTOP of Redis for three leases, results waiting", duplicates=0, bound=2)
    assert not any(daemon.of("job.refused") for daemon in daemons)


@pytest.mark.long
@pytest.mark.each_redis
def test_row_10_writes_paused(lab: Laboratory) -> None:
    lab.start("a", lease="400ms")
    lab.start("b", lease="400ms")
    lab.put(16, "gated")
    lab.wait_started(16)
    lab.redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    lab.gates.open("gate")
    eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
    lab.hold(1.2)
    assert lab.redis.zcard(lab.keys.active) == 16
    lab.redis.execute_command("CLIENT", "UNPAUSE")
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 10", "CLIENT PAUSE WRITE for three leases of 0.4 s", duplicates=0, bound=2)


@pytest.mark.each_redis
def test_row_15_redis_killed_and_restarted(make: MakeLaboratory) -> None:
    lab = make(*AOF)
    lab.start(lease="1s")
    for _ in range(3):
        lab.put(100, "effect", seconds="0.05")
        lab.wait_started(lab.ledger.count("start") + 20)
        lab.outage()
        lab.server.kill()
        lab.server.start()
        lab.outage_over(noticed=LOAD)
    lab.wait_ended()
    lab.check("row 15 killed", "kill -9 of Redis 3 times, AOF everysec", duplicates=0, bound=2)


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
    lab.outage()
    lab.server.kill()
    # What was written in the last moment never reached the disk; the last command is torn.
    size = aof(lab).stat().st_size
    os.truncate(aof(lab), kept + (size - kept) // 2 + 1)
    lab.server.start()
    lab.outage_over(noticed=LOAD)
    jobs = {job_id: lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged}
    ready = lab.redis.zrange(lab.keys.ready, 0, -1)
    left = {job_id for job_id, job in jobs.items() if job and (job_id in ready or not half_lost(job))}
    lab.wait_ended(left)
    figures = lab.check(
        "row 15 power", f"half of the last AOF writes gone, {len(lab.acknowledged) - len(left)} jobs with them",
        lossy=True, leases_twice=True,
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
    lab.check("row 17", f"maxmemory under used; 16 ran, {len(ready)} waited", duplicates=0, tight=True)
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
    lab.wait_ended(lab.put(5))
    lab.check("row 18 start", "allkeys-lru when the daemon starts: exit 78, unless allowed", duplicates=0)


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
            lab.outage()
            fill(lab, ballast)
            lab.gates.open("gate")
            eventually(lambda: lab.ledger.count("end") == 16, "16 results that wait")
            lab.hold(1)
            assert lab.redis.zcard(lab.keys.active) == 16
            ballast.unlink()
            eventually(lambda: not refuses(lab), "room for writes again")
            lab.outage_over(noticed=2 + LOAD)
            lab.wait_ended()
            lab.check("row 19", "the disk of the AOF is full", duplicates=0, bound=3)
    finally:
        server.close()
        subprocess.run(["umount", disk], check=False, capture_output=True)
        shutil.rmtree(server.directory, ignore_errors=True)


def fill(lab: Laboratory, ballast: Path) -> None:
    """Take the rest of the disk and write until Redis notices that it cannot."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1000))
    eventually(lambda: refuses(lab), "MISCONF")


def refuses(lab: Laboratory) -> bool:
    """Write; returns whether Redis cannot."""
    try:
        lab.redis.set("filler", os.urandom(5000).hex())
    except redis.ResponseError as error:
        return "MISCONF" in str(error)
    return False
