"""A Redis that does not answer: few lines, growing pauses, one line when it is over."""

from __future__ import annotations

from jobqd.duties.outage import Outage
from jobqd.errors import StoreError, StoreFault
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.parts import world

DOWN = StoreError(StoreFault.DOWN, "connection refused")


def outage(clock: ManualClock, log: RecordingLog) -> Outage:
    return Outage(world(clock, lambda: 1.0, log))


def test_a_single_dropped_connection_is_nothing_to_speak_of() -> None:
    log = RecordingLog()
    made = outage(ManualClock(), log)
    assert made.failed("claim", DOWN) == 0.0
    made.succeeded("claim")
    assert log.events == []
    assert made.failed("claim", DOWN) == 0.0


def test_an_error_that_waiting_cannot_cure_is_not_tried_again_at_once() -> None:
    made = outage(ManualClock(), RecordingLog())
    assert made.failed("claim", StoreError(StoreFault.WRONGTYPE, "WRONGTYPE")) > 0


def test_pauses_grow_up_to_two_seconds() -> None:
    made = outage(ManualClock(), RecordingLog())
    pauses = [made.failed("claim", DOWN) for _ in range(40)]
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 2.0


def test_half_of_a_pause_is_random() -> None:
    made = Outage(world(ManualClock(), lambda: 0.0))
    made.failed("claim", DOWN)
    assert made.failed("claim", DOWN) == 0.05


def test_an_outage_is_told_once_reminded_of_each_minute_and_told_to_be_over() -> None:
    clock, log = ManualClock(), RecordingLog()
    made = outage(clock, log)
    assert made.away_since is None
    for part in ("claim", "settle", "heartbeat"):
        made.failed(part, DOWN)
        made.failed(part, DOWN)
    assert made.away_since == clock.now
    assert [fields["part"] for fields in log.of("redis.away")] == ["claim"]
    told = log.of("redis.away")[0]
    assert (told["fault"], told["error"], told["problem"]) == ("down", "connection refused", "Redis does not answer")
    clock.advance(59)
    made.failed("claim", DOWN)
    assert len(log.of("redis.away")) == 1
    clock.advance(2)
    made.failed("claim", DOWN)
    assert len(log.of("redis.away")) == 2
    made.succeeded("claim")
    made.succeeded("settle")
    # One part is still not served.
    assert made.away_since is not None
    assert log.of("redis.back") == []
    made.succeeded("heartbeat")
    assert log.of("redis.back") == [{"away": 61.0}]
    assert made.away_since is None


def test_a_part_without_which_jobs_run_is_named_and_redis_is_not_away() -> None:
    log = RecordingLog()
    made = outage(ManualClock(), log)
    denied = StoreError(StoreFault.DENIED, "NOPERM")
    for part in ("walk", "walk", "walk", "claim"):
        made.failed(part, denied)
    assert (made.away_since, made.count) == (None, 0)
    assert made.troubles == ["walk: Redis refuses us: check the password and the ACL"]
    assert len(log.of("redis.away")) == 1
    made.failed("claim", denied)
    assert (made.away_since is not None, made.count) == (True, 1)
    made.succeeded("claim")
    assert (made.away_since, made.count, log.of("redis.back")) == (None, 1, [])
    made.succeeded("walk")
    assert made.troubles == []
    assert len(log.of("redis.back")) == 1


def test_every_fault_has_a_sentence() -> None:
    for fault in StoreFault:
        log = RecordingLog()
        made = outage(ManualClock(), log)
        made.failed("claim", StoreError(fault, "x"))
        made.failed("claim", StoreError(fault, "x"))
        assert log.of("redis.away")[0]["problem"]


def test_each_kind_of_fault_is_told_once_in_an_outage() -> None:
    clock, log = ManualClock(), RecordingLog()
    made = outage(clock, log)
    denied = StoreError(StoreFault.DENIED, "WRONGPASS")
    for error in (DOWN, DOWN, denied, DOWN, denied, DOWN):
        made.failed("claim", error)
    assert [fields["fault"] for fields in log.of("redis.away")] == ["down", "denied"]
    made.succeeded("claim")
    made.failed("claim", denied)
    made.failed("claim", denied)
    assert [fields["fault"] for fields in log.of("redis.away")] == ["down", "denied", "denied"]


def test_what_a_person_has_to_put_right_is_tried_seldom() -> None:
    made = outage(ManualClock(), RecordingLog())
    denied = StoreError(StoreFault.DENIED, "WRONGPASS")
    assert [made.failed("claim", denied) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
