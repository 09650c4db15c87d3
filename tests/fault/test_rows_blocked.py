"""Row 6: a handler blocks the event loop, or holds the interpreter's lock."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.fault.laboratory import Laboratory
from tests.fault.manager import Manager, manager
from tests.fault.scenes import wait_until_it_sweeps
from tests.support.waiting import eventually


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Manager]]:
    """Let the daemons that are made from now on have a watchdog of so many seconds."""
    with ExitStack() as stack:

        def watch(watchdog: float) -> Manager:
            made = stack.enter_context(manager(watchdog))
            for name, value in made.environ.items():
                monkeypatch.setenv(name, value)
            return made

        yield watch


@pytest.mark.long
@pytest.mark.parametrize(("job_type", "where"), [("blocks", "gate_in_thread"), ("spins", "in spins")])
def test_row_06_a_handler_blocks_the_loop_for_10_s(
    lab: Laboratory, systemd: Callable[[float], Manager], job_type: str, where: str
) -> None:
    second = lab.start("b", lease="2s")
    watchdog = systemd(30.0)
    first = lab.start("a", lease="2s")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    lab.put(4, "gated")
    lab.wait_started(4)
    (blocker,) = lab.put(1, job_type)
    lab.wait_started(5)
    second.signal(signal.SIGCONT)
    record = first.wait_for("loop.blocked", job_type=job_type, job_id=blocker)
    assert where in record["stack"]
    lab.hold(10)
    lab.gates.open("unblock")
    lab.gates.open("gate")
    lab.wait_ended()
    lab.check(f"row 6 {job_type}", "the loop blocked for 10 s, lease 2 s, watchdog 30 s", duplicates=0)
    assert first.wait_for("loop.unblocked")
    assert watchdog.longest_silence() < watchdog.watchdog
    assert first.stop() == 0


@pytest.mark.long
def test_row_06_a_handler_blocks_the_loop_for_ever(lab: Laboratory, systemd: Callable[[float], Manager]) -> None:
    watchdog = systemd(15.0)
    daemon = lab.start(block_limit="2s")
    neighbours = lab.put(4, "gated")
    lab.wait_started(4)
    (blocker,) = lab.put(1, "blocks")
    lab.wait_started(5)
    assert daemon.wait(20) == 70
    # It gave up by itself: the watchdog, which would have charged the neighbours, had no cause to act.
    assert watchdog.longest_silence() < watchdog.watchdog
    lab.fault()
    lab.gates.open("unblock")
    lab.gates.open("gate")
    lab.start()
    lab.wait_ended()
    lab.check(
        "row 6 for ever", "the loop blocked without end, block_limit 2 s, restarted", duplicates=5, crashes=1,
        interruptions=4, bound=2,
    )  # fmt: skip
    assert daemon.of("loop.blocked", job_id=blocker)
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
            expected_to_fail=frozenset({poison}), duplicates=23, crashes=23, interruptions=0,
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
        duplicates=10, crashes=10, interruptions=0, expected_to_fail=frozenset({poison}), due=1, bound=6,
    )  # fmt: skip
    assert lab.redis.hmget(lab.keys.job(poison), "status", "error_type", "crashes") == ["failed", "Crashed", "2"]
    others = [lab.redis.hgetall(lab.keys.job(job_id)) for job_id in lab.acknowledged - {poison}]
    assert {(job["status"], job["attempts"], job["crashes"]) for job in others} == {("completed", "1", "1")}
    assert second.stop() == 0
