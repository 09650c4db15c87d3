"""A queue with a job in every state, and for each script a call that has everything to do there."""

from __future__ import annotations

from typing import Any

import redis

from jobqd.job import Claimed
from jobqd.keys import Seat
from jobqd.store import producing, repairing, running
from jobqd.store.call import Call
from jobqd.store.producing import NewJob
from tests.support.lab import DAY, Lab, lapse_orders, order


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
    return running.promote(lab.keys)


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


def repair(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.zrem(lab.keys.active, "returns", "retries")
    lab.raw.srem(lab.keys.held, "type:song")
    lab.raw.expire(lab.keys.job("first"), 1000)
    lab.raw.persist(lab.keys.job("done"))
    lab.hset("half", "mail")
    ids = ("returns", "retries", "held", "first", "done", "half", "runs")
    return repairing.repair(lab.keys, ids, dry=False, patience=0, job_ttl=DAY)


def tidy_dead(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.rpush(lab.keys.dead, "nobody", "done", "runs")
    return repairing.tidy(lab.keys, "", lab.dead(), dry=False)


def tidy_held(scene: Scene) -> Call[Any]:
    lab = scene.lab
    lab.raw.zadd(lab.keys.held_for("type:song"), {"nobody": 1})
    return repairing.tidy(lab.keys, "type:song", ["held", "nobody"], dry=False)


def purge(scene: Scene) -> Call[Any]:
    lab = scene.lab
    letters = [(job_id, str(lab.field(job_id, "finished_at"))) for job_id in ("dead", "reborn", "done")]
    return repairing.purge(lab.keys, letters)


CALLS = (
    claim, claim_once_more, settle, settle_dead_daemon, lapsed, promote, walk, beat, progress, checkpoint, enqueue,
    cancel, dead_retry, repair, tidy_dead, tidy_held, purge,
)  # fmt: skip


SPARE = (
    claim, claim_once_more, settle, settle_dead_daemon, lapsed, promote, walk, beat, cancel, progress, dead_retry,
    repair, tidy_dead, purge,
)  # fmt: skip
"""Scripts that do without some of their calls: presence, counters, messages and other things for people."""
