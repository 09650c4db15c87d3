"""Faults of the daemon's own process: killed, paused, blocked, told to stop."""

from __future__ import annotations

import signal
from random import Random

import pytest

from tests.fault.failpoints import set_failpoint
from tests.fault.laboratory import Laboratory
from tests.fault.scenes import wait_until_it_sweeps
from tests.support.daemon import Daemon
from tests.support.waiting import eventually


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
    lab.check(
        "row 1 handlers", "kill -9 with 16 running, restarted", duplicates=16, crashes=16, interruptions=0, bound=2
    )


@pytest.mark.parametrize("point", ["claimed", "handler ended", "settled"])
def test_row_01_killed_at_a_failpoint(lab: Laboratory, point: str) -> None:
    set_failpoint(lab.directory, point)
    first = lab.daemon().start(ready=False)
    lab.put(20)
    assert first.wait() == -signal.SIGKILL
    lab.fault()
    lab.start()
    lab.wait_ended()
    figures = lab.check(f"row 1 {point}", "kill -9 at the failpoint, restarted", interruptions=0, bound=2)
    # Only what had begun can run twice; every lease that the dead daemon held is a crash.
    assert (figures.duplicates > 0) == (point != "claimed")
    crashes = int(lab.redis.hget(lab.keys.counters, "lapsed"))
    assert crashes >= max(1 if point == "settled" else 16, figures.duplicates)


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
    lab.check(
        f"row 2 {point}", "kill -9 in the start after a kill -9", duplicates=16, crashes=16, interruptions=0, bound=4
    )
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
    lab.check(
        f"row 3 {how}", "a job that ends its process, restarted", interruptions=0, bound=10,
        expected_to_fail=frozenset({poison}),
    )  # fmt: skip
    assert lab.redis.hmget(lab.keys.job(poison), "status", "error_type", "crashes") == ["failed", "Crashed", "3"]
    others = [lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged - {poison}]
    assert len(others) == 100
    assert {(job["status"], job["attempts"]) for job in others} == {("completed", "1")}
    assert last.stop() == 0


def paused(lab: Laboratory, lease: float, pause: float, **jobs: int) -> tuple[Daemon, Daemon]:
    """Pause the first of two daemons, which runs these jobs (counts by type), and let its runs end when it wakes."""
    first = lab.start("a", lease=f"{lease}s")
    second = lab.start("b", lease=f"{lease}s")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    for job_type, number in jobs.items():
        lab.put(number, job_type)
    lab.wait_started(sum(jobs.values()))
    eventually(lambda: lab.ledger.count("marked") == jobs.get("marks", 0), "marks")
    second.signal(signal.SIGCONT)
    lab.hold(lease / 3)
    lab.fault()
    first.signal(signal.SIGSTOP)
    lab.gates.open("run-1")
    lab.hold(pause)
    return first, second


def continued(lab: Laboratory, first: Daemon) -> None:
    """Let the paused daemon's results, progress and checkpoints meet the second runs of their jobs, under way."""
    lab.wait_started(16)
    eventually(lambda: lab.ledger.count("marked") == 8, "marks of the second runs")
    first.signal(signal.SIGCONT)
    lab.wait_refused(8)
    lab.gates.open("run-2")
    lab.wait_ended()


def test_row_04_paused_beyond_its_lease(lab: Laboratory) -> None:
    first, _ = paused(lab, 0.6, 1.0, by_turns=4, marks=4)
    continued(lab, first)
    lab.check(
        "row 4", "SIGSTOP for longer than a lease of 0.6 s", refused=8, duplicates=8, crashes=8, interruptions=0,
        due=0.6, bound=2,
    )  # fmt: skip


@pytest.mark.long
def test_row_04_paused_for_30_s(lab: Laboratory) -> None:
    first, _ = paused(lab, 15, 30, by_turns=4, marks=4)
    continued(lab, first)
    lab.check(
        "row 4, defaults", "SIGSTOP for 30 s, lease 15 s", refused=8, duplicates=8, crashes=8, interruptions=0,
        due=15, bound=2,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("lease", "pause"), [(1.5, 0.6), (15, 5)])
def test_row_05_paused_within_its_lease(lab: Laboratory, lease: float, pause: float) -> None:
    first, second = paused(lab, lease, pause, by_turns=8)
    first.signal(signal.SIGCONT)
    lab.wait_ended()
    lab.check("row 5", f"SIGSTOP for {pause} s, lease {lease} s", duplicates=0)
    assert not second.of("job.recovered", reason="its lease ran out", job_type="by_turns")


@pytest.mark.long
def test_row_23_four_daemons_race_on_tiny_leases(lab: Laboratory) -> None:
    # The shortest lease that the settings allow.
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
    figures = lab.check(
        "row 23", f"4 daemons, lease 50 ms, {pauses} pauses of 20 to 300 ms, jobs of 0.2 s", interruptions=0
    )
    assert figures.duplicates > 0, "no lease was lost: nobody raced"
