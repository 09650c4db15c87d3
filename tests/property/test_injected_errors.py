"""An error at any call of any script loses nothing: whoever comes next brings every job to its end, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from jobqd.errors import StoreError
from jobqd.job import Claimed
from jobqd.keys import Seat
from jobqd.retry import Settlement
from jobqd.store import producing, running
from jobqd.store.call import Call
from jobqd.store.producing import NewJob
from tests.property.faulty import INJECTED, failing_at
from tests.support.lab import DAY, TERMINAL, Lab, lapse_orders, order

ALL = {"mail": -1, "song": -1, "film": -1}
MOST_CALLS = 400


class Scene:
    """A queue with a job in every state, and the runs that are under way."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.raw.flushall()
        lab.numbers.clear()
        self.acknowledged: set[str] = set()
        self.runs: dict[str, Claimed] = {}
        self._ended()
        self._running()
        self._waiting()
        self._image: list[tuple[bytes, int, bytes]] = []

    def save(self) -> None:
        """Keep the scene as it is now."""
        plain = self._plain = redis.Redis(unix_socket_path=self.lab.raw.connection_pool.connection_kwargs["path"])
        self._image = [(key, max(0, plain.pttl(key)), plain.dump(key)) for key in plain.keys("*")]

    def reset(self) -> None:
        """Bring the scene back as it was saved."""
        pipe = self._plain.pipeline(transaction=False)
        pipe.flushall()
        for key, ttl, value in self._image:
            pipe.restore(key, ttl, value)
        pipe.execute()

    def close(self) -> None:
        self._plain.close()

    def _put(self, job_id: str, job_type: str = "mail", score: float = 10, **fields: Any) -> None:
        self.lab.put(job_id, job_type, score, **fields)
        self.acknowledged.add(job_id)

    def _ended(self) -> None:
        lab = self.lab
        for job_id, to in (("reborn", "dead"), ("dead", "dead"), ("done", "completed"), ("reborn-film", "completed")):
            self._put(job_id)
            lab.end(lab.claim_one("w1"), to)
        self._put("reborn", score=4)
        self._put("reborn-film", "film", score=4)

    def _running(self) -> None:
        lab = self.lab
        names = ("completes", "dies", "returns", "retries", "snoozes", "runs", "lapses", "again")
        for job_id in names:
            self._put(job_id, score=-5)
            self.runs[job_id] = lab.claim_one("w1")
        lab.lapse("lapses")
        self._put("again", score=1)

    def _waiting(self) -> None:
        lab = self.lab
        self._put("held", "song", score=0)
        lab.claim("w1", 1, types={})
        lab.enqueue(NewJob("due", 3, {"type": "mail"}, delay=1000), NewJob("early", 3, {"type": "mail"}, delay=1000))
        self.acknowledged |= {"due", "early"}
        lab.make_due("due")
        lab.zadd("late", 1.5)
        lab.zadd("later", 1.6)
        self.acknowledged |= {"late", "later"}
        lab.claim("w0", 1, types={})
        lab.raw.zadd(lab.keys.missing, {"late": 1, "later": 1})
        lab.hset("late")
        lab.hset("later")
        lab.zadd("later", 1.6)
        # These no script has met yet: nothing but the ready set tells that they are acknowledged.
        self._put("early", score=2)
        for n, (job_id, job_type) in enumerate((("first", "mail"), ("blocked", "film"), ("second", "song"))):
            self._put(job_id, job_type, score=5 + n)


# The call of each script, in a scene where it has everything to do


def claim(scene: Scene) -> Call[Any]:
    return scene.lab.claim_call("w1", 8, types={"mail": -1, "song": 1})


def claim_once_more(scene: Scene) -> Call[Any]:
    call = claim(scene)
    scene.lab.run(call)
    return call


def settle(scene: Scene) -> Call[Any]:
    lab, runs = scene.lab, scene.runs
    ends = {"completes": "completed", "dies": "dead", "returns": "ready", "retries": "retrying", "snoozes": "scheduled"}
    orders = [order(runs[job_id], to) for job_id, to in ends.items()]
    orders += [*lapse_orders(lab.lapsed()), order(runs["again"])]
    return running.settle(lab.keys, orders, dead_max=1, trimmed_ttl=DAY)


def settle_dead_daemon(scene: Scene) -> Call[Any]:
    orders = lapse_orders(scene.lab.lapsed(dead_worker="w1"), "dead", "retrying")
    return running.settle(scene.lab.keys, orders, dead_max=1, trimmed_ttl=DAY)


def lapsed(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.zadd(lab.keys.active, {"done": 1, "nobody": 2})
    return running.lapsed(lab.keys)


def promote(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.zadd(lab.keys.scheduled, {"done": 1, "runs": 2})
    return running.promote(lab.keys, max_age=DAY)


def walk(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.zrem(lab.keys.active, "returns", "retries")
    lab.raw.expire(lab.keys.job("first"), 1000)
    lab.raw.persist(lab.keys.job("done"))
    lab.set("held", _due_at="1.000000")
    lab.raw.rpush(lab.keys.dead, "nobody")
    return running.walk(lab.keys, "0", count=1000, max_age=DAY, job_ttl=DAY)


def beat(scene: Scene) -> Call[Any]:
    runs = [run for job_id, run in scene.runs.items() if job_id != "lapses"]
    return running.beat(Seat(scene.lab.keys, "w1", 15.0), {"host": "here"}, [(run.id, run.fence) for run in runs])


def progress(scene: Scene) -> Call[Any]:
    update = [running.ProgressUpdate(name, scene.runs[name].fence, "5", "", "", "{}") for name in ("runs", "dies")]
    return running.progress(Seat(scene.lab.keys, "w1", 15.0), update)


def checkpoint(scene: Scene) -> Call[Any]:
    return running.checkpoint(Seat(scene.lab.keys, "w1", 15.0), "runs", scene.runs["runs"].fence, "{}", 1)


def enqueue(scene: Scene) -> Call[Any]:
    lab = scene.lab
    fields = {"type": "mail", "payload": "{}"}
    lab.hset("half", "mail")
    jobs = (NewJob("new", 1, fields), NewJob("new-delayed", 1, fields, delay=1000), NewJob("half", 1, fields))
    return producing.enqueue(lab.keys, jobs, max_ready=1000)


def cancel(scene: Scene) -> Call[Any]:
    ids = ("runs", "first", "held", "due", "reborn", "late")
    return producing.cancel(scene.lab.keys, ids, job_ttl=DAY)


def dead_retry(scene: Scene) -> Call[Any]:
    return producing.dead_retry(scene.lab.keys, ["dead"])


CALLS = (
    claim, claim_once_more, settle, settle_dead_daemon, lapsed, promote, walk, beat, progress, checkpoint, enqueue,
    cancel, dead_retry,
)  # fmt: skip


SPARE = (claim, claim_once_more, settle, settle_dead_daemon, lapsed, promote, walk, beat, cancel, progress, dead_retry)
"""Scripts that do without some of their calls: presence, counters, messages and other things for people."""


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
