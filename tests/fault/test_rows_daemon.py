"""Faults of the daemon's own process: killed, paused, blocked, told to stop."""

from __future__ import annotations

import signal
from itertools import count
from random import Random

import pytest

from tests.fault.failpoints import set_failpoint
from tests.fault.laboratory import Laboratory
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
    assert daemon.wait() == 0
    # However many there are, they are one stop, which waits for what runs.
    lab.check("row 8 hangups", "100 SIGHUP while 50 jobs run", duplicates=0)
    assert {lab.redis.hget(lab.keys.job(job_id), "status") for job_id in lab.acknowledged} == {"completed"}


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
