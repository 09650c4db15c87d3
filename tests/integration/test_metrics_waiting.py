"""For how long jobs have waited: told by a few looks at a sorted set, whoever wrote the scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from jobqd.keys import Keys
from jobqd.store import Link, counting
from jobqd.store.reading import Reading
from jobqd.store.waiting import longest_wait, together
from tests.support.lab import Lab


class Counted:
    """Carries readings out and counts what they ask for."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.trips = self.commands = 0

    def __call__(self, reading: Reading[Any]) -> Any:
        replies = None
        try:
            while True:
                commands = reading.send(replies)
                self.trips, self.commands = self.trips + 1, self.commands + len(commands)
                replies = self._lab.link.pipeline(commands)
        except StopIteration as done:
            return done.value


@pytest.fixture
def read(lab: Lab) -> Counted:
    return Counted(lab)


@pytest.fixture
def names() -> Iterator[int]:
    return count()


def waits(lab: Lab, read: Counted, index: str = "") -> float | None:
    return read(longest_wait(lab.keys, index or lab.keys.ready, time.time()))


def ready_for(lab: Lab, seconds: float, priority: int = 10, job_id: str = "") -> None:
    """Put a job as our clients do, so many seconds ago."""
    lab.put(job_id or f"{priority}-{seconds}", score=f"{priority + (time.time() - seconds) / 1e10:.17g}")


def about(seconds: float) -> Any:
    # At priority 10 the fraction resolves 18 µs; what the test itself takes is the rest.
    return pytest.approx(seconds, abs=5)


def test_nothing_waits_in_an_empty_queue(lab: Lab, read: Counted) -> None:
    assert waits(lab, read) is None


def test_the_oldest_of_all_priorities_counts_and_not_the_next_in_line(lab: Lab, read: Counted) -> None:
    ready_for(lab, 5, priority=1)
    ready_for(lab, 900, priority=20)
    ready_for(lab, 60, priority=20)
    ready_for(lab, 30, priority=-7)
    assert waits(lab, read) == about(900)


def test_jobs_with_a_plain_score_do_not_hide_those_behind_them(lab: Lab, read: Counted) -> None:
    for number in range(30):
        lab.put(f"raw-{number}", score=10)
    ready_for(lab, 700)
    assert waits(lab, read) == about(700)


def test_the_creation_of_a_raw_job_stands_in_for_its_score(lab: Lab, read: Counted) -> None:
    lab.put("raw", score=10, created_at=f"{time.time() - 400:.3f}")
    lab.put("javascript", score=10, created_at=f"{(time.time() - 500) * 1000:.0f}")
    assert waits(lab, read) == about(500)
    lab.put("shell", score=10, created_at=f"{time.time() - 600:.0f}")
    assert waits(lab, read) == about(600)


def test_a_job_that_came_back_has_not_waited_since_its_creation(lab: Lab, read: Counted) -> None:
    lab.put("handed-back", score=10, created_at=f"{time.time() - 9000:.3f}", interruptions=1)
    assert waits(lab, read) is None


@pytest.mark.parametrize("score", ["-inf", "inf", "1e300", "0.5", "-0.0001"])
def test_a_score_that_tells_nothing_spoils_nothing(lab: Lab, read: Counted, score: str) -> None:
    lab.zadd("odd", score)
    assert waits(lab, read) is None
    ready_for(lab, 60)
    assert waits(lab, read) == about(60)


def test_what_is_no_job_spoils_nothing(lab: Lab, read: Counted) -> None:
    lab.raw.lpush(lab.keys.job("list"), "x")
    lab.zadd("list", 10)
    lab.zadd("no-hash", 10)
    lab.put("odd", score=10, created_at="yesterday")
    lab.put("good", score=10, created_at=f"{time.time() - 60:.3f}")
    assert waits(lab, read) == about(60)


def test_many_priorities_are_looked_at_from_both_ends(lab: Lab, read: Counted) -> None:
    for priority in range(200):
        ready_for(lab, 10, priority=priority)
    ready_for(lab, 800, priority=19, job_id="near")
    assert waits(lab, read) == about(800)
    ready_for(lab, 900, priority=180, job_id="starving")
    assert waits(lab, read) == about(900)
    ready_for(lab, 1000, priority=100, job_id="in between")
    assert waits(lab, read) == about(900), "docs/operations.md says that those in between are not looked at"


def test_a_long_queue_costs_no_more_looks_than_a_short_one(lab: Lab, read: Counted) -> None:
    scores = {f"job-{number}": 10 + (time.time() - 300 + number / 1000) / 1e10 for number in range(20_000)}
    lab.raw.zadd(lab.keys.ready, scores)
    assert waits(lab, read) == about(300)
    assert read.trips <= 4
    assert read.commands <= 6


def test_readings_made_together_share_their_round_trips(lab: Lab, read: Counted) -> None:
    ready_for(lab, 5)
    for number in range(30):
        lab.raw.zadd(lab.keys.held_for(f"type:t{number}"), {f"held-{number}": 10 + (time.time() - number) / 1e10})
    indexes = [lab.keys.ready, *(lab.keys.held_for(f"type:t{number}") for number in range(30)), "none"]
    found = read(together([longest_wait(lab.keys, index, time.time()) for index in indexes]))
    assert found == [about(5), *(about(number) for number in range(30)), None]
    assert found[30] > found[1] + 20
    assert read.trips <= 4


def test_nothing_made_together_is_nothing(read: Counted) -> None:
    assert read(together([])) == []
    assert read.trips == 0


async def test_stats_tell_both_ages(lab: Lab, link: Link, keys: Keys, read: Counted) -> None:
    ready_for(lab, 100)
    lab.raw.sadd(lab.keys.held, "type:film", "type:raw")
    lab.raw.zadd(lab.keys.held_for("type:film"), {"film": 10 + (time.time() - 4000) / 1e10})
    lab.raw.zadd(lab.keys.held_for("type:raw"), {"raw": 10})
    found = read(counting.stats(lab.keys))
    assert found.oldest == about(100)
    assert found.held_oldest == {"type:film": about(4000), "type:raw": None}
