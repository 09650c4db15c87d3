"""Metrics without a daemon: addresses, counting, health, and the names they get."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jobqd.cli.limits import check_line, oldest, passed, queue_limits
from jobqd.errors import ConfigError, PayloadError
from jobqd.metrics.families import EVENTS, DaemonCollector, QueueCollector
from jobqd.metrics.lag import LoopLag
from jobqd.metrics.process import ProcessCollector
from jobqd.metrics.tally import OTHER, OUTCOMES, Histogram, Tally, outcome
from jobqd.metrics.vitals import TURNS_WITHIN, Vitals
from jobqd.runs import Run
from jobqd.settings import load
from jobqd.settings.local import LocalAddress, local_address
from jobqd.store.counting import DaemonInfo, Stats
from tests.support.clock import ManualClock
from tests.support.documents import Document
from tests.support.parts import NOW, claimed, run_of

# ------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", LocalAddress("127.0.0.1", 9464)),
        ("127.1.2.3:1", LocalAddress("127.1.2.3", 1)),
        ("localhost:9464", LocalAddress("127.0.0.1", 9464)),
        ("[::1]:9464", LocalAddress("::1", 9464)),
        ("unix:///run/jobqd/metrics.sock", LocalAddress(path="/run/jobqd/metrics.sock")),
        ("unix:///run/{instance}.sock", LocalAddress(path="/run/b.sock")),
    ],
)
def test_an_address_on_this_machine_is_taken(text: str, address: LocalAddress) -> None:
    assert local_address(text, "b") == address
    assert local_address(str(address), "b") == address


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[2001:db8::1]:80"])
def test_an_address_that_others_reach_is_refused_with_the_reason_and_the_remedy(text: str, tmp_path: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        load({"metrics": text}, environ={}, cwd=tmp_path)
    assert "no password" in str(raised.value)
    assert "proxy" in str(raised.value)
    assert "127.0.0.1:9464" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("9464", "neither an address"),
        ("127.0.0.1", "neither an address"),
        ("127.0.0.1:99999", "neither an address"),
        ("127.0.0.1:٣", "neither an address"),
        (":9464", "neither localhost nor"),
        ("example.org:9464", "neither localhost nor"),
        ("::1:9464", "square brackets"),
        ("[127.0.0.1]:9464", "square brackets"),
        ("unix://run/x.sock", "begins with a slash"),
        ("unix:///" + "x" * 107, "at most 107 bytes"),
    ],
)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        local_address(text)


def test_metrics_are_off_unless_set(tmp_path: Any) -> None:
    assert load(environ={}, cwd=tmp_path).settings.metrics == ""
    assert load({"metrics": " "}, environ={}, cwd=tmp_path).settings.metrics == ""
    set_to = load({"metrics": "unix:///run/{instance}.sock"}, environ={}, cwd=tmp_path).settings.metrics
    assert set_to == "unix:///run/{instance}.sock"


# -------------------------------------------------------------------------------------------------------- counting


def test_a_histogram_counts_up_to_and_including_each_bound() -> None:
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.1, 0.5, 0.6, 1.0, 7.0):
        histogram.observe(seconds)
    rows, total = histogram.buckets()
    assert rows == [("0.5", 2.0), ("1.0", 4.0), ("+Inf", 5.0)]
    assert total == pytest.approx(9.2)


@pytest.mark.parametrize(
    ("to", "answer", "counted"),
    [
        ("completed", "ok", "completed"),
        ("completed", "already", "completed"),
        ("retrying", "ok", "retried"),
        ("dead", "ok", "dead"),
        ("scheduled", "ok", "snoozed"),
        ("ready", "ok", "interrupted"),
        ("completed", "cancelled", "cancelled"),
        ("completed", "stale", "lost"),
        ("retrying", "gone", "lost"),
        ("completed", "error: ERR nothing known", "unrecorded"),
    ],
)
def test_each_end_of_a_run_has_one_name(to: str, answer: str, counted: str) -> None:
    assert outcome(to, answer) == counted
    assert counted in OUTCOMES


def began(run: Run) -> Run:
    run.task = SimpleNamespace()  # type: ignore[assignment]
    return run


def test_runs_are_counted_by_type_and_foreign_types_together() -> None:
    tally = Tally(("mail", "film"))
    for number, job_type in enumerate(("mail", "mail", "", "junk-1", "junk-2")):
        run = began(run_of(claimed(str(number), type=job_type, created_at=NOW - 3)))
        tally.started(run)
        run.ended = run.started + 2
        tally.settled(run, "completed", "ok")
    assert {name: counts.started for name, counts in tally.by_type.items()} == {"mail": 2, "film": 0, OTHER: 3}
    assert tally.by_type["mail"].ended["completed"] == 2
    assert tally.by_type["mail"].ran.buckets()[1] == 4.0
    assert tally.by_type["mail"].waited.buckets()[1] == 6.0


def test_a_run_that_never_began_is_not_counted_as_ended() -> None:
    tally = Tally(("mail",))
    tally.settled(run_of(claimed(type="mail")), "ready", "ok")
    assert sum(tally.by_type["mail"].ended.values()) == 0


def test_a_wait_that_nothing_tells_is_not_counted_as_none() -> None:
    tally = Tally(("mail",))
    tally.started(run_of(claimed(type="mail", created_at=NOW - 3, interruptions=1)))
    assert tally.by_type["mail"].started == 1
    assert tally.by_type["mail"].waited.buckets()[0][-1] == ("+Inf", 0.0)


def test_a_type_named_other_shares_its_counts_with_foreign_ones() -> None:
    tally = Tally((OTHER,))
    tally.started(run_of(claimed(type=OTHER)))
    tally.started(run_of(claimed(type="junk")))
    assert tally.by_type[OTHER].started == 2


# ----------------------------------------------------------------------------------------------------------- health


async def test_a_loop_that_turns_owes_nothing_and_its_lag_is_measured() -> None:
    clock = ManualClock()
    lag = LoopLag(asyncio.get_running_loop(), clock)
    ask = threading.Thread(target=lag.ask)
    ask.start()
    ask.join()
    clock.advance(0.2)
    assert lag.owed() == pytest.approx(0.2)
    lag.ask()
    await asyncio.sleep(0)
    assert lag.owed() == 0.0
    rows, total = lag.answers.buckets()
    assert (rows[-1], total) == (("+Inf", 1.0), pytest.approx(0.2))


def test_a_loop_that_was_closed_owes_for_ever() -> None:
    clock, loop = ManualClock(), asyncio.new_event_loop()
    loop.close()
    lag = LoopLag(loop, clock)
    lag.ask()
    clock.advance(9)
    assert lag.owed() == 9


def vitals(**changes: Any) -> Vitals:
    facts = {
        "workers": 4, "busy": 1, "backlog": 0, "away": None, "outages": 0, "status": "running", "claimed": True,
        "owed": 0.0, **changes,
    }  # fmt: skip
    return Vitals(**facts)


@pytest.mark.parametrize(
    ("changes", "unwell", "idle"),
    [
        ({}, None, None),
        ({"owed": TURNS_WITHIN - 0.1}, None, None),
        ({"owed": TURNS_WITHIN}, "blocked for 3s", "blocked for 3s"),
        ({"away": 12.0}, None, "Redis has been away for 12s"),
        ({"status": "draining"}, None, "draining"),
        ({"status": "quiet"}, None, "quiet"),
        ({"claimed": False}, None, "starting"),
    ],
)
def test_health_is_about_the_loop_and_readiness_about_claiming(
    changes: dict[str, Any], unwell: str | None, idle: str | None
) -> None:
    now = vitals(**changes)
    for found, expected in ((now.unwell(), unwell), (now.idle(), idle)):
        assert (found is None) == (expected is None)
        assert expected is None or expected in str(found)


# ------------------------------------------------------------------------------------------------------------ names


def stats(**changes: Any) -> Stats:
    facts: dict[str, Any] = {
        "now": NOW, "ready": 0, "active": 0, "overdue": 0, "scheduled": 0, "next_due": None, "held": {}, "dead": 0,
        "counters": {}, "levels": (), "daemons": (), "foreign": (), "oldest": None, "held_oldest": {}, **changes,
    }  # fmt: skip
    return Stats(**facts)


def queue_samples(found: Stats | None) -> dict[tuple[str, str], float]:
    collector = QueueCollector(SimpleNamespace(read=lambda: found), ("mail",), queue="q")  # type: ignore[arg-type]
    return {
        (sample.name, sample.labels.get("reason", sample.labels.get("event", ""))): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_without_redis_there_is_no_figure_of_the_queue() -> None:
    assert queue_samples(None) == {("jobqd_redis_up", ""): 0.0}


def test_held_reasons_are_as_many_as_handlers_however_many_types_a_producer_invents() -> None:
    held = {"type:mail": 2, "suspect": 1, **{f"type:junk-{number}": 1 for number in range(1000)}}
    samples = queue_samples(stats(held=held, held_oldest={"type:mail": 5.0, "type:junk-1": 7.0, "type:junk-2": 9.0}))
    counted = {reason: value for (name, reason), value in samples.items() if name == "jobqd_queue_held_jobs"}
    assert counted == {"type:mail": 2, "suspect": 1, OTHER: 1000}
    ages = {reason: value for (name, reason), value in samples.items() if name == "jobqd_queue_oldest_held_seconds"}
    assert ages == {"type:mail": 5.0, OTHER: 9.0}


def test_a_daemon_that_knows_every_type_says_that_it_holds_no_other() -> None:
    """Or the alert, min by (queue), would hear only those that do not know one."""
    assert queue_samples(stats(held={"type:mail": 3}))["jobqd_queue_held_jobs", OTHER] == 0


def test_the_age_of_nothing_is_none_and_an_unknown_age_is_no_figure() -> None:
    assert queue_samples(stats())["jobqd_queue_oldest_ready_seconds", ""] == 0
    assert queue_samples(stats(ready=3, oldest=4.5))["jobqd_queue_oldest_ready_seconds", ""] == 4.5
    assert ("jobqd_queue_oldest_ready_seconds", "") not in queue_samples(stats(ready=3))


def test_every_counter_of_the_protocol_is_an_event() -> None:
    counters = [cell.strip("`") for cell in Document("docs/protocol.md").column("counter")]
    assert sorted(EVENTS) == sorted(counters)


def test_a_daemon_tells_who_it_is_without_redis() -> None:
    loop = asyncio.new_event_loop()
    lag = LoopLag(loop, ManualClock())
    collector = DaemonCollector(Tally(()), lag, vitals, instance="b", queue="q")
    info = next(iter(collector.collect())).samples[0]
    assert (info.name, info.labels["daemon"], info.labels["queue"], info.value) == ("jobqd_info", "b", "q", 1)
    loop.close()


def test_the_process_tells_what_it_uses() -> None:
    values = {sample.name: sample.value for family in ProcessCollector(NOW).collect() for sample in family.samples}
    assert values["process_start_time_seconds"] == NOW
    assert 2**20 < values["process_resident_memory_bytes"] < 2**32
    assert 3 <= values["process_open_fds"] <= values["process_max_fds"]
    assert values["process_cpu_seconds_total"] > 0


# ------------------------------------------------------------------------------------------- jobq stats with limits


def daemon(*types: str) -> DaemonInfo:
    return DaemonInfo("w", "default", "host", 1, "1", NOW, 4, 0, types, "running")


def test_jobs_held_for_want_of_a_handler_are_waiting_and_those_at_their_cap_take_their_turn() -> None:
    found = stats(
        ready=1, oldest=3.0, daemons=[daemon("film")],
        held_oldest={"type:film": 3600.0, "type:mial": 60.0, "suspect": 7200.0},
    )  # fmt: skip
    assert oldest(found) == 60.0
    assert oldest(stats(held_oldest={"type:film": 3600.0})) == 3600.0
    assert oldest(stats()) == 0.0
    assert oldest(stats(ready=1)) is None


def test_each_limit_is_compared_and_told() -> None:
    limits = queue_limits("5m", 100, 10, 2)
    well = stats(ready=100, oldest=300.0, dead=10, daemons=[daemon(), daemon()])
    assert passed(well, limits) == []
    assert check_line(well, limits, "job_queue") == (
        "JOBQ OK - job_queue: ready 100, oldest waits 5m, dead 10, daemons 2 "
        "| ready=100;100 oldest=300s;300 dead=10;10 daemons=2;2:"
    )
    ill = stats(ready=1101, oldest=301.0, dead=11, daemons=[daemon()])
    assert passed(ill, limits) == [
        "oldest waits 5m1s, more than 5m", "ready 1,101, more than 100", "dead 11, more than 10",
        "daemons 1, fewer than 2",
    ]  # fmt: skip
    assert check_line(ill, limits, "a|b").startswith("JOBQ WARNING - a/b: oldest waits 5m1s, more than 5m; ready 1,101")


def test_an_age_that_nothing_tells_passes_no_limit_and_is_told_as_unknown() -> None:
    found = stats(ready=3)
    assert passed(found, queue_limits("1s", None, None, None)) == []
    line = check_line(found, queue_limits("1s", None, None, None), "q")
    assert line == "JOBQ OK - q: ready 3, oldest waits unknown, dead 0, daemons 0 | ready=3 dead=0 daemons=0"


def test_a_limit_that_is_no_duration_is_refused() -> None:
    with pytest.raises(PayloadError, match="--max-age"):
        queue_limits("soon", None, None, None)
    assert not queue_limits(None, None, None, None).given
    assert queue_limits(None, 0, None, None).given
