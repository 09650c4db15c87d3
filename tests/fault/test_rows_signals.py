"""Signals to a daemon, and to the programs that its jobs run."""

from __future__ import annotations

import os
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from tests.fault.laboratory import Laboratory
from tests.support.waiting import eventually


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
    lab.check("row 7", "4 stops, one job of 0.5 s and one without end", duplicates=3, crashes=0, interruptions=3)


def test_row_08_two_stops_during_the_start(lab: Laboratory) -> None:
    daemon = lab.daemon().start(ready=False)
    daemon.wait_for("daemon.starting")
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    lab.check("row 8 stops", "SIGTERM twice during the start")


def test_row_08_a_storm_of_hangups(lab: Laboratory) -> None:
    daemon = lab.start(concurrency=50)
    lab.put(50, "effect", seconds="1.5")
    lab.wait_started(50)
    began = time.monotonic()
    for _ in range(100):
        daemon.signal(signal.SIGHUP)
        lab.hold(0.01)
    took = time.monotonic() - began
    daemon.wait_for("daemon.reloaded")
    lab.wait_ended()
    lab.wait_ended(lab.put(1))
    reloads = len(daemon.of("daemon.reloaded"))
    lab.check("row 8 hangups", f"100 SIGHUP in {took:.1f} s while 50 jobs run, {reloads} reloads", duplicates=0)
    assert {lab.redis.hget(lab.keys.job(job_id), "status") for job_id in lab.acknowledged} == {"completed"}
    # The first at once, then one each second at most.
    assert reloads <= 2 + took, daemon.log
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
    injected = "Ctrl-C, 8 programs beyond drain_timeout, restarted"
    lab.check("row 27 released", injected, duplicates=8, crashes=0, interruptions=8)
