"""Faults of the daemon's own process: killed, paused, blocked, told to stop."""

from __future__ import annotations

import os
import signal
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.fault.failpoints import set_failpoint
from tests.fault.laboratory import Laboratory
from tests.fault.manager import manager
from tests.support.daemon import Daemon
from tests.support.waiting import eventually


def wait_until_it_sweeps(lab: Laboratory, daemon: Daemon) -> None:
    """Return when a daemon judges the leases of others; that takes a lease."""
    name = f"decoy-{daemon.pid}"
    lab.redis.hset(lab.keys.job(name), mapping={"status": "processing", "type": "none", "worker": "nobody", "fence": 1})
    lab.redis.zadd(lab.keys.active, {name: 1})
    eventually(lambda: lab.redis.zscore(lab.keys.active, name) is None, "a swept decoy", 30)
    lab.redis.delete(lab.keys.job(name))
    lab.redis.zrem(lab.keys.held_for("type:none"), name)
    lab.redis.zrem(lab.keys.ready, name)
    lab.redis.delete(lab.keys.counters)


@pytest.mark.long
def test_row_01_killed_while_idle(lab: Laboratory) -> None:
    first = lab.start()
    lab.wait_ended(lab.put(20))
    lab.fault()
    first.kill()
    lab.put(20)
    lab.start()
    lab.wait_ended()
    lab.check("row 1 idle", "kill -9, restarted", duplicates=0)


def test_row_01_killed_in_the_middle_of_handlers(lab: Laboratory) -> None:
    first = lab.start()
    lab.put(30, "first_run_gated")
    lab.wait_started(16)
    lab.fault()
    first.kill()
    lab.gates.open("gate")
    lab.start()
    lab.wait_ended()
    lab.check("row 1 handlers", "kill -9 with 16 running, restarted", duplicates=16, bound=3)


@pytest.mark.parametrize("point", ["claimed", "handler ended", "settled"])
def test_row_01_killed_at_a_failpoint(lab: Laboratory, point: str) -> None:
    set_failpoint(lab.directory, point)
    first = lab.daemon().start(ready=False)
    lab.put(20)
    assert first.wait() == -signal.SIGKILL
    lab.fault()
    lab.start()
    lab.wait_ended()
    figures = lab.check(f"row 1 {point}", "kill -9 at the failpoint, restarted", bound=3)
    # Only what had begun can run twice.
    assert (figures.duplicates > 0) == (point != "claimed")


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["predecessor read", "predecessor's jobs listed", "predecessor's jobs settled", "predecessor forgotten"]
)
def test_row_02_killed_while_it_takes_jobs_back(lab: Laboratory, point: str) -> None:
    first = lab.start()
    lab.put(16, "first_run_gated")
    lab.wait_started(16)
    lab.fault()
    first.kill()
    set_failpoint(lab.directory, point)
    assert lab.daemon().start(ready=False).wait() == -signal.SIGKILL
    lab.start()
    lab.wait_ended()
    lab.check(f"row 2 {point}", "kill -9 in the start after a kill -9", duplicates=16, bound=6)
    crashes = {lab.redis.hget(lab.keys.job(job_id), "crashes") for job_id in lab.acknowledged}
    assert crashes == {"1"}


@pytest.mark.long
@pytest.mark.parametrize("how", ["abort", "segfault"])
def test_row_03_a_poison_job_among_a_hundred(lab: Laboratory, how: str) -> None:
    (poison,) = lab.put(1, "dies", how=how)
    lab.put(100, "effect", seconds="0.3")
    for _ in range(2):
        assert lab.start(max_crashes=3).wait() == (-signal.SIGABRT if how == "abort" else -signal.SIGSEGV)
        lab.fault()
    last = lab.start(max_crashes=3)
    lab.wait_ended(timeout=60)
    lab.check(f"row 3 {how}", "a job that ends its process, restarted", bound=20, expected_to_fail=frozenset({poison}))
    assert lab.redis.hmget(lab.keys.job(poison), "status", "error_type", "crashes") == ["failed", "Crashed", "3"]
    others = [lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged - {poison}]
    assert len(others) == 100
    assert {(job["status"], job["attempts"]) for job in others} == {("completed", "1")}
    assert last.stop() == 0


def paused(lab: Laboratory, lease: float, pause: float) -> tuple[Daemon, Daemon]:
    first = lab.start("a", lease=f"{lease}s")
    second = lab.start("b", lease=f"{lease}s")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    lab.put(8, "first_run_gated")
    lab.wait_started(8)
    second.signal(signal.SIGCONT)
    lab.hold(lease / 3)
    lab.fault()
    first.signal(signal.SIGSTOP)
    lab.gates.open("gate")
    lab.hold(pause)
    return first, second


def test_row_04_paused_beyond_its_lease(lab: Laboratory) -> None:
    first, _ = paused(lab, 0.6, 1.0)
    lab.wait_ended()
    first.signal(signal.SIGCONT)
    lab.check("row 4", "SIGSTOP for longer than a lease of 0.6 s", refused=8, duplicates=8, bound=3)


@pytest.mark.long
def test_row_04_paused_for_30_s(lab: Laboratory) -> None:
    first, _ = paused(lab, 15, 30)
    lab.wait_ended()
    first.signal(signal.SIGCONT)
    lab.check("row 4, defaults", "SIGSTOP for 30 s, lease 15 s", refused=8, duplicates=8, bound=20)


@pytest.mark.long
@pytest.mark.parametrize(("lease", "pause"), [(1.5, 0.6), (15, 5)])
def test_row_05_paused_within_its_lease(lab: Laboratory, lease: float, pause: float) -> None:
    first, second = paused(lab, lease, pause)
    first.signal(signal.SIGCONT)
    lab.wait_ended()
    lab.check("row 5", f"SIGSTOP for {pause} s, lease {lease} s", duplicates=0)
    assert not second.of("job.recovered", reason="its lease ran out", job_type="first_run_gated")


@pytest.mark.long
def test_row_06_a_handler_blocks_the_loop_for_10_s(lab: Laboratory) -> None:
    first = lab.start("a", lease="2s")
    second = lab.start("b", lease="2s")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    lab.put(4, "gated")
    lab.wait_started(4)
    lab.put(1, "blocks")
    lab.wait_started(5)
    second.signal(signal.SIGCONT)
    record = first.wait_for("loop.blocked", job_type="blocks")
    assert "gate_in_thread" in record["stack"]
    lab.hold(10)
    lab.gates.open("unblock")
    lab.gates.open("gate")
    lab.wait_ended()
    lab.check("row 6", "the loop blocked for 10 s, lease 2 s", duplicates=0)
    assert first.of("loop.unblocked")


@pytest.mark.long
def test_row_06_a_handler_blocks_the_loop_for_ever(lab: Laboratory) -> None:
    daemon = lab.start(block_limit="2s")
    neighbours = lab.put(4, "gated")
    lab.wait_started(4)
    (blocker,) = lab.put(1, "blocks")
    lab.wait_started(5)
    assert daemon.wait(20) == 70
    lab.fault()
    lab.gates.open("unblock")
    lab.gates.open("gate")
    lab.start()
    lab.wait_ended()
    lab.check("row 6 for ever", "the loop blocked without end, block_limit 2 s, restarted", duplicates=5, bound=3)
    charges = [lab.redis.hmget(lab.keys.job(job_id), "crashes", "interruptions") for job_id in neighbours]
    assert charges == [[None, "1"]] * 4
    assert lab.redis.hmget(lab.keys.job(blocker), "crashes", "interruptions") == ["1", None]


@pytest.mark.long
def test_row_06_a_handler_holds_the_interpreters_lock(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(watchdog=2.0) as systemd:
        for name, value in systemd.environ.items():
            monkeypatch.setenv(name, value)
        settings = {"max_crashes": 3, "lease": "1s", "concurrency": 25}
        (poison,) = lab.put(1, "holds")
        long = lab.put(10, "gated")
        for death in (1, 2):
            systemd.forget()
            daemon = lab.start(**settings)
            lab.wait_started(11 * death)
            short = lab.put(5)
            lab.wait_ended(short)
            eventually(lambda: systemd.times("WATCHDOG=1"), "WATCHDOG=1 of a daemon that works", 15)
            lab.gates.open("hold")
            lab.fault()
            systemd.kill_when_silent(daemon, 15)
            assert daemon.wait() == -signal.SIGABRT
            assert "in holds" in daemon.log
            lab.gates.close("hold")
        systemd.forget()
        lab.redis.hset(lab.keys.job(poison), "timeout", "1s")
        lab.start(**settings)
        lab.gates.open("hold")
        lab.gates.open("gate")
        lab.wait_ended()
        for kind in ("READY=1", "WATCHDOG=1"):
            eventually(lambda kind=kind: systemd.times(kind), kind)
        lab.check(
            "row 6 GIL", "a regular expression keeps the interpreter's lock; ended by the watchdog, restarted, twice",
            expected_to_fail=frozenset({poison}), duplicates=23,
        )  # fmt: skip
    job = lab.redis.hgetall(lab.keys.job(poison))
    assert (job["status"], job["error_type"], job["crashes"], job.get("attempts")) == ("failed", "Crashed", "3", None)
    assert job["error"] == "timed out after 1s, and its process, which did not answer, was killed"
    assert lab.redis.lrange(lab.keys.dead, 0, -1) == [poison]
    neighbours = [lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged - {poison}]
    assert len(neighbours) == 20
    assert {(job["status"], job["attempts"]) for job in neighbours} == {("completed", "1")}
    assert {job.get("crashes") for job in neighbours} == {None, "2"}
    assert len(long) == sum("crashes" in job for job in neighbours)


@pytest.mark.long
def test_row_06_another_daemon_takes_over_from_one_that_holds_the_lock(lab: Laboratory) -> None:
    # One crash makes a suspect here, or the second daemon would hang too.
    first, second = (lab.start(name, lease="1s", max_crashes=2) for name in "ab")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    (poison,) = lab.put(1, "holds")
    lab.put(8, "first_run_gated")
    lab.wait_started(9)
    second.signal(signal.SIGCONT)
    lab.redis.hset(lab.keys.job(poison), "timeout", "1s")
    lab.fault()
    lab.gates.open("hold")
    lab.wait_ended()
    first.signal(signal.SIGABRT)
    first.wait()
    lab.check(
        "row 6 GIL, two daemons", "a regular expression keeps the lock of one of two daemons, lease 1 s",
        duplicates=10, expected_to_fail=frozenset({poison}), bound=12,
    )  # fmt: skip
    assert lab.redis.hmget(lab.keys.job(poison), "status", "error_type", "crashes") == ["failed", "Crashed", "2"]
    others = [lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged - {poison}]
    assert {(job["status"], job["attempts"], job["crashes"]) for job in others} == {("completed", "1", "1")}
    assert second.stop() == 0


@pytest.mark.long
def test_row_07_stopped_with_a_short_and_a_long_job(lab: Laboratory) -> None:
    daemon = lab.start(drain_timeout="1s")
    (short,) = lab.put(1, "effect", seconds="0.5")
    (long,) = lab.put(1, "gated")
    lab.wait_started(2)
    status = daemon.stop(timeout=6)
    assert status == 0
    assert lab.redis.hget(lab.keys.job(short), "status") == "completed"
    for stop in count(2):
        daemon = lab.start(drain_timeout="0s")
        lab.wait_started(1 + stop)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("daemon.draining")
        if stop == 4:
            break
        assert daemon.wait(6) == 0
        assert lab.redis.hget(lab.keys.job(long), "interruptions") == str(stop)
    # Interrupted three times: this stop waits for it.
    lab.gates.open("gate")
    assert daemon.wait(6) == 0
    lab.wait_ended()
    lab.check("row 7", "4 stops, one job of 0.5 s and one without end", duplicates=3)


def test_row_08_two_stops_during_the_start(lab: Laboratory) -> None:
    daemon = lab.daemon().start(ready=False)
    daemon.wait_for("daemon.starting")
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    lab.check("row 8 stops", "SIGTERM twice during the start")


def test_row_08_a_storm_of_hangups(lab: Laboratory) -> None:
    daemon = lab.start(concurrency=50)
    lab.put(50, "effect", seconds="0.5")
    lab.wait_started(50)
    for _ in range(100):
        daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.reloaded")
    lab.wait_ended()
    lab.wait_ended(lab.put(1))
    # However many there are, they are few reloads, and nothing else happens.
    lab.check("row 8 hangups", "100 SIGHUP while 50 jobs run", duplicates=0)
    assert {lab.redis.hget(lab.keys.job(job_id), "status") for job_id in lab.acknowledged} == {"completed"}
    assert len(daemon.of("daemon.reloaded")) <= 100
    assert daemon.stop() == 0


def programs(lab: Laboratory, count: int) -> dict[str, int]:
    """Return the program's process for each film, once they all run."""
    films = lab.put(count, "film")
    eventually(lambda: len(list(lab.directory.glob("film*.pid"))) == count, f"{count} programs")
    return {film: int((lab.directory / f"{film}.pid").read_text()) for film in films}


def signals(lab: Laboratory) -> set[str]:
    """Return what the programs noted: signals, and their end."""
    return set("".join(file.read_text() for file in lab.directory.glob("film*.log")).split())


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)], ids=["ctrl-c", "sigterm"]
)
def test_row_27_a_stop_lets_programs_end(lab: Laboratory, number: signal.Signals) -> None:
    daemon = lab.start(drain_timeout="20s")
    films = programs(lab, 8)
    # A terminal sends it to the whole foreground process group.
    os.killpg(daemon.pid, number)
    daemon.wait_for("daemon.draining")
    lab.hold(0.3)
    assert signals(lab) == set()
    for film in films:
        (lab.directory / f"{film}.end").touch()
    assert daemon.wait() == 0
    lab.check(f"row 27 {number.name}", "Ctrl-C or SIGTERM to the process group, 8 programs drained", duplicates=0)
    assert signals(lab) == {"end"}
    assert {lab.redis.hget(lab.keys.job(film), "status") for film in films} == {"completed"}


@pytest.mark.long
def test_row_27_a_stop_ends_programs_that_take_too_long(lab: Laboratory) -> None:
    daemon = lab.start(drain_timeout="500ms")
    films = programs(lab, 8)
    os.killpg(daemon.pid, signal.SIGINT)
    assert daemon.wait() == 0
    # Its own order to end is the first signal that reaches a program.
    assert signals(lab) == {"SIGTERM"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in films.values())
    for film in films:
        assert lab.redis.hmget(lab.keys.job(film), "interruptions", "attempts") == ["1", None]
        (lab.directory / f"{film}.end").touch()
    lab.start()
    lab.wait_ended()
    lab.check("row 27 released", "Ctrl-C, 8 programs beyond drain_timeout, restarted", duplicates=8)


@pytest.mark.long
def test_row_23_four_daemons_race_on_tiny_leases(lab: Laboratory) -> None:
    random = Random(23)
    daemons = [lab.start(name, lease="50ms", retry_delay="10ms", concurrency=4) for name in "abcd"]
    ids = lab.put(300, "effect", seconds="0.2")
    pauses = 0
    while lab.redis.hget(lab.keys.counters, "completed") != str(len(ids)) and pauses < 200:
        daemon = random.choice(daemons)
        lab.fault()
        daemon.signal(signal.SIGSTOP)
        lab.hold(random.uniform(0.02, 0.3))
        daemon.signal(signal.SIGCONT)
        pauses += 1
    lab.wait_ended(timeout=60)
    figures = lab.check("row 23", f"4 daemons, lease 50 ms, {pauses} pauses of 20 to 300 ms, jobs of 0.2 s")
    assert figures.duplicates > 0, "no lease was lost: nobody raced"
