"""An error at any call of any script loses nothing: whoever comes next brings every job to its end, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobqd.errors import StoreError
from jobqd.retry import Settlement
from jobqd.store import running
from jobqd.store.call import Call
from tests.property.faulty import INJECTED, failing_at
from tests.property.scene import CALLS, SPARE, Scene, cancel, enqueue, purge, repair, settle
from tests.support.lab import TERMINAL, Lab, lapse_orders, order

ALL = {"mail": -1, "song": -1, "film": -1}
MOST_CALLS = 400


def run_to_the_end(lab: Lab) -> Counter[str]:
    """Let everybody die and a new daemon do all the work; return how often each job was completed."""
    completed: Counter[str] = Counter()
    for _ in range(30):
        for key in (lab.keys.active, lab.keys.scheduled, lab.keys.missing):
            lab.raw.zinterstore(key, {key: 0})
        orders = lapse_orders(lab.lapsed())
        if orders:
            assert set(lab.settle(*orders)) == {"ok"}
        lab.promote()
        lab.walk(max_age=1e12)
        jobs = lab.claim("w9", 100, types=ALL, max_age=1e12).jobs
        assert set(lab.settle(*(order(job, worker="w9") for job in jobs))) <= {"ok"}
        completed.update(job.id for job in jobs)
        if not jobs and not orders and not lab.raw.exists(lab.keys.scheduled, lab.keys.ready, lab.keys.active):
            return completed
    raise AssertionError(f"jobs without an end: {lab.snapshot()}")


def jobs_of(lab: Lab, ids: list[str]) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    """Return the hash and the TTL of each job."""
    pipe = lab.raw.pipeline(transaction=False)
    for job_id in ids:
        pipe.hgetall(lab.keys.job(job_id))
        pipe.ttl(lab.keys.job(job_id))
    replies = pipe.execute()
    return dict(zip(ids, replies[::2], strict=True)), dict(zip(ids, replies[1::2], strict=True))


def ended(lab: Lab, ids: set[str]) -> Iterator[str]:
    """Name the jobs that have their end already."""
    for job_id, job in jobs_of(lab, sorted(ids))[0].items():
        if job.get("status") in TERMINAL and "finished_at" in job:
            yield job_id


def check(scene: Scene, ids: set[str]) -> None:
    lab = scene.lab
    before = set(ended(lab, ids))
    completed = run_to_the_end(lab)
    # Nothing waits any more, in no index.
    keys = lab.keys
    left = {keys.ready, keys.active, keys.scheduled, keys.missing, *lab.raw.keys(f"{keys.held}*")}
    assert {key: lab.snapshot()[key] for key in left if lab.raw.exists(key)} == {}
    dead = lab.dead()
    jobs, ttls = jobs_of(lab, sorted(ids))
    for job_id, job in jobs.items():
        assert job.get("status") in TERMINAL, (job_id, job)
        assert "finished_at" in job
        assert ttls[job_id] > 0, (job_id, job)
        assert (completed[job_id] == 1) == (job_id not in before), (job_id, job)
        assert completed[job_id] <= 1
        assert int(job.get("attempts", "0")) <= 3, (job_id, job)
    assert len(dead) == len(set(dead))
    if jobs["dies"]["status"] == "failed":
        assert "dies" in dead


@pytest.mark.parametrize("sent_again", [False, True], ids=["died", "sent again"])
@pytest.mark.parametrize("make", CALLS, ids=[make.__name__ for make in CALLS])
def test_an_error_at_any_call_loses_nothing(lab: Lab, make: Callable[[Scene], Call[Any]], sent_again: bool) -> None:
    scene = Scene(lab)
    call = make(scene)
    scene.save()
    last = calls_of(lab, call)
    assert last < MOST_CALLS
    for number in range(1, last + 2):
        scene.reset()
        try:
            lab.run(failing_at(call, number))
            failed = False
        except StoreError as error:
            if INJECTED not in str(error):
                raise
            failed = True
        ids = set(scene.acknowledged)
        if failed and sent_again:
            lab.run(call)
        if make is enqueue and (not failed or sent_again):
            ids |= {"new", "new-delayed", "half"}
        if make is repair:
            # What others have damaged is mended by an operator alone, who repairs until there is nothing to say.
            lab.run(call)
            ids |= {"half"}
        if make is purge:
            _check_purged(lab, finished=not failed or sent_again)
            ids -= {"dead"}
        if make is cancel and (not failed or sent_again):
            assert {lab.status(job_id) for job_id in call.args[5:]} == {"cancelled"}
        if make is settle and (not failed or sent_again):
            _check_settled(lab, number)
        try:
            check(scene, ids)
        except AssertionError as error:
            raise AssertionError(f"after an error at call {number}: {error}") from error
        assert failed or number > last or make in SPARE, number
    scene.close()


def _check_settled(lab: Lab, number: int) -> None:
    statuses = {name: lab.status(name) for name in ("completes", "dies", "returns", "retries", "snoozes", "again")}
    assert statuses == {
        "completes": "completed", "dies": "failed", "returns": "queued", "retries": "retrying", "snoozes": "scheduled",
        "again": "completed",
    }, number  # fmt: skip
    charged = [lab.field(name, "attempts") for name in ("completes", "dies", "retries", "returns")]
    assert (charged, lab.field("returns", "interruptions")) == (["1", "1", "1", None], "1"), number
    assert "dies" in lab.dead(), number


def _check_purged(lab: Lab, finished: bool) -> None:
    """A dead letter is deleted, or still to be deleted; no other job ever is."""
    left = [lab.raw.exists(lab.keys.job(job_id)) for job_id in ("dead", "reborn", "done")]
    assert left == [0, 1, 1] if finished else left[1:] == [1, 1]
    assert left[0] or "dead" not in lab.dead()


def calls_of(lab: Lab, call: Call[Any]) -> int:
    """Return how many commands the script sends."""
    lab.raw.config_resetstat()
    lab.run(call)
    stats = lab.raw.info("commandstats")
    calls = sum(row["calls"] for name, row in stats.items() if not name.startswith(("cmdstat_eval", "cmdstat_config")))
    return int(calls)


def test_the_fault_is_where_it_is_said_to_be(lab: Lab) -> None:
    scene = Scene(lab)
    claimed = scene.runs["runs"]
    call = running.settle(lab.keys, [Settlement("runs", "w1", claimed.fence, "completed")], dead_max=1, trimmed_ttl=9)
    before = lab.snapshot()
    with pytest.raises(StoreError, match=INJECTED):
        lab.run(failing_at(call, 1))
    assert lab.snapshot() == before
    with pytest.raises(StoreError, match=INJECTED):
        lab.run(failing_at(call, 12))
    assert lab.run(failing_at(call, 100)) == ["already"]
