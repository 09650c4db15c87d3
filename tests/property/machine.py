"""Random sequences of everything that producers, daemons and operators do to a few ids, checked after each step.

What is remembered here is little: who holds which lease, which enqueues were acknowledged, what each id may still do.
Everything else is read from Redis and held against the invariants of docs/protocol.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqd.job import Claimed
from jobqd.store.producing import NewJob
from jobqd.store.running import Suspects
from tests.support.lab import TERMINAL, Lab, lapse_orders, order

IDS = ("a", "b", "c", "d", "e\n{}*")
WORKERS = ("w1", "w2")
TYPES = ("mail", "film")
MAX_ATTEMPTS = 3

ids = st.sampled_from(IDS)
workers = st.sampled_from(WORKERS)
types = st.sampled_from(TYPES)
scores = st.sampled_from([10, 10, 3.5, -1, 0, "inf", "-inf", 1e308])
room = st.sampled_from([-1, -1, 1, 0])
allowances = st.fixed_dictionaries({}, optional={"mail": room, "film": room})
verbs = st.sampled_from(["completed", "completed", "dead", "retrying", "ready", "scheduled"])
STATUS_IN = {"ready": {"queued"}, "held": {"queued"}, "active": {"processing"}, "scheduled": {"scheduled", "retrying"}}


@dataclass
class View:
    """One id as Redis has it."""

    job: dict[str, str] = field(default_factory=dict)
    ttl: int = -2
    places: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.job.get("status") in TERMINAL and "finished_at" in self.job

    @property
    def reborn(self) -> bool:
        return self.job.get("status") == "queued" and "finished_at" in self.job

    @property
    def entered(self) -> bool:
        return bool(self.job) and not self.ended and not self.reborn and "_due_at" in self.job


@dataclass(frozen=True)
class Lease:
    """One run, as a daemon remembers it."""

    claimed: Claimed
    worker: str

    @property
    def name(self) -> tuple[str, int]:
        return (self.worker, self.claimed.fence)


class QueueMachine(RuleBasedStateMachine):
    """The rules. `lab` is given by the test."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.runs: list[Lease] = []
        self.owner: dict[str, tuple[str, int]] = {}
        self.last_claim: dict[str, tuple[int, list[tuple[str, int]]]] = {}
        self.acknowledged: set[str] = set()
        self.foreign: set[str] = set()
        """Ids with a foreign write that no script has reconciled yet."""
        self.enqueues: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.fences: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.may_charge: set[str] = set()
        self.counts_hold = True

    @initialize()
    def begin(self) -> None:
        self.lab.raw.flushall()
        self.lab.numbers.clear()

    # A foreign producer

    def _view(self, job_id: str) -> View:
        return self._views()[job_id]

    def _views(self) -> dict[str, View]:
        lab, keys = self.lab, self.lab.keys
        reasons = ("missing", "suspect", "type:mail", "type:film")
        pipe = lab.raw.pipeline(transaction=False)
        for job_id in IDS:
            pipe.hgetall(keys.job(job_id))
            pipe.ttl(keys.job(job_id))
        for key in (keys.ready, keys.active, keys.scheduled, *map(keys.held_for, reasons)):
            pipe.zrange(key, 0, -1)
        replies = pipe.execute()
        views = {job_id: View(replies[2 * n], replies[2 * n + 1]) for n, job_id in enumerate(IDS)}
        places = ("ready", "active", "scheduled", *["held"] * 4)
        for place, members in zip(places, replies[2 * len(IDS) :], strict=True):
            for job_id in members:
                views[job_id].places.append(place)
        return views

    @rule(job_id=ids, job_type=types)
    def hset(self, job_id: str, job_type: str) -> None:
        before = self._view(job_id)
        if before.ended or not before.job:
            self.enqueues[job_id] += 1
        # A ZADD that came before its HSET is acknowledged from now on.
        if not before.job and "active" not in before.places and {"ready", "held"} & set(before.places):
            self.acknowledged.add(job_id)
        self.foreign.add(job_id)
        self.lab.hset(job_id, job_type)

    @rule(job_id=ids, score=scores)
    def zadd(self, job_id: str, score: float | str) -> None:
        before = self._view(job_id)
        if before.job and not before.ended:
            self.acknowledged.add(job_id)
        self.foreign.add(job_id)
        self.lab.zadd(job_id, score)

    @rule(job_id=ids, job_type=types, score=scores)
    def two_commands(self, job_id: str, job_type: str, score: float | str) -> None:
        self.hset(job_id, job_type)
        self.zadd(job_id, score)

    @rule(job_id=ids, any_state=st.sampled_from([False, False, False, True]))
    def delete(self, job_id: str, any_state: bool) -> None:
        view = self._view(job_id)
        if not view.job or not (view.ended or any_state):
            return
        if view.entered:
            self.counts_hold = False
        self.foreign.add(job_id)
        self.acknowledged.discard(job_id)
        self.owner.pop(job_id, None)
        self.fences.pop(job_id, None)
        self.charged.pop(job_id, None)
        self.lab.raw.delete(self.lab.keys.job(job_id))

    # A client

    @rule(job_id=ids, job_type=types, delay=st.sampled_from([None, None, 1000.0]), priority=st.integers(-2, 12))
    def enqueue(self, job_id: str, job_type: str, delay: float | None, priority: int) -> None:
        before = self._view(job_id)
        answer = self.lab.enqueue(NewJob(job_id, priority, {"type": job_type}, delay=delay)).existing
        assert answer == [before.job.get("status", "queued") if before.job else ""]
        if not before.job:
            self.enqueues[job_id] += 1
            if before.places:
                self.foreign.add(job_id)
        if not before.ended:
            self.acknowledged.add(job_id)
        else:
            assert self._view(job_id) == before

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        before = self._view(job_id)
        (answer,) = self.lab.cancel(job_id)
        after = self._view(job_id)
        if not before.job:
            assert answer == "gone"
        elif before.ended:
            assert answer == {"cancelled": "already"}.get(before.job["status"], before.job["status"])
            assert after == before
        else:
            assert answer == ("cancelled" if "active" in before.places else "removed")
            assert after.ended
            assert after.places == []
            self._has_ended(job_id)

    @rule(job_id=ids)
    def dead_retry(self, job_id: str) -> None:
        before = self._view(job_id)
        (answer,) = self.lab.dead_retry(job_id)
        if before.ended and before.job["status"] == "failed":
            assert answer == "retried"
            self.enqueues[job_id] += 1
            self.acknowledged.add(job_id)
            if before.places:
                self.foreign.add(job_id)
        else:
            assert answer == (before.job.get("status") if before.job else "gone")
            assert self._view(job_id) == before

    def _has_ended(self, job_id: str) -> None:
        self.endings[job_id] += 1
        self.owner.pop(job_id, None)
        self.acknowledged.discard(job_id)

    # A daemon

    @rule(worker=workers, want=st.integers(1, 4), types=allowances, suspects=room)
    def claim(self, worker: str, want: int, types: dict[str, int], suspects: int) -> None:
        claims = self.lab.claim(worker, want, types=types, max_age=1e12, suspects=Suspects(1, suspects))
        taken = [job.id for job in claims.jobs]
        assert len(taken) == len(set(taken)) <= want
        assert not claims.more
        scores = [job.score for job in claims.jobs]
        assert scores == sorted(scores)
        for job in claims.jobs:
            assert job.id not in self.owner
            assert job.fence > self.fences.get(job.id, 0)
            self.fences[job.id] = job.fence
            self.owner[job.id] = (worker, job.fence)
            self.runs.append(Lease(job, worker))
            assert job.attempts <= MAX_ATTEMPTS
            assert job.type in types
            if job.attempts == 0:
                self.charged[job.id] = 0
        for job_type, allowance in types.items():
            assert allowance < 0 or sum(job.type == job_type for job in claims.jobs) <= allowance
        assert suspects < 0 or sum(job.crashes > 0 for job in claims.jobs) <= suspects
        if len(taken) < want:
            self._nothing_left(types, taken, suspects)
        self.last_claim[worker] = (self.lab.numbers[worker], [(job.id, job.fence) for job in claims.jobs])

    def _nothing_left(self, types: dict[str, int], taken: list[str], suspects: int) -> None:
        assert self.lab.raw.zcard(self.lab.keys.ready) == 0
        for job_type, allowance in types.items():
            if allowance < 0:
                assert self.lab.raw.zcard(self.lab.keys.held_for(f"type:{job_type}")) == 0, taken
        if suspects < 0:
            assert self.lab.raw.zcard(self.lab.keys.held_for("suspect")) == 0, taken

    @precondition(lambda self: self.last_claim)
    @rule(data=st.data(), late=st.booleans())
    def repeat_a_claim(self, data: Any, late: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.last_claim)))
        number, leases = self.last_claim[worker]
        before = self.lab.snapshot()
        again = self.lab.claim(worker, 5, number=number - 1 if late else number, types={"mail": -1, "film": -1})
        expected = [] if late else [lease for lease in leases if self.owner.get(lease[0]) == (worker, lease[1])]
        assert [(job.id, job.fence) for job in again.jobs] == expected
        if not expected:
            assert self.lab.snapshot() == before

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), verb=verbs, foreign=st.sampled_from([False, False, False, True]))
    def settle(self, data: Any, verb: str, foreign: bool) -> None:
        lease = data.draw(st.sampled_from(self.runs[-6:]))
        worker = "w9" if foreign else lease.worker
        self._settle(lease.claimed, worker, verb)

    @precondition(lambda self: self.owner)
    @rule(data=st.data(), verb=verbs)
    def settle_a_lease_held(self, data: Any, verb: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.owner)))
        lease = next(run for run in reversed(self.runs) if run.claimed.id == job_id and run.name == self.owner[job_id])
        self._settle(lease.claimed, lease.worker, verb)

    def _settle(self, claimed: Claimed, worker: str, verb: str) -> None:
        job_id = claimed.id
        before = self._view(job_id)
        charge = {} if verb not in ("completed", "dead", "retrying") else {
            "charge": "attempts" if int(before.job.get("attempts", "0")) < MAX_ATTEMPTS else ""
        }  # fmt: skip
        (answer,) = self.lab.settle(order(claimed, verb, worker, **charge), dead_max=3)
        after = self._view(job_id)
        if self.owner.get(job_id) != (worker, claimed.fence):
            assert answer != "ok"
            assert after == before
            return
        assert answer == "ok"
        self.owner.pop(job_id)
        self.may_charge.add(job_id)
        if verb in ("completed", "dead"):
            self._has_ended(job_id)
        place = {"ready": ["ready"], "retrying": ["scheduled"], "scheduled": ["scheduled"]}.get(verb, [])
        assert [name for name in after.places if name != "held"] == place
        (again,) = self.lab.settle(order(claimed, verb, worker, **charge), dead_max=3)
        assert again == "already"
        assert self._view(job_id) == after

    @precondition(lambda self: self.runs)
    @rule(worker=workers)
    def beat(self, worker: str) -> None:
        runs = [run.claimed for run in self.runs if run.worker == worker]
        lost = self.lab.beat(worker, *((run.id, run.fence) for run in runs))
        expected = {(run.id, run.fence) for run in runs if self.owner.get(run.id) != (worker, run.fence)}
        assert {(job_id, fence) for job_id, fence, _ in lost} == expected

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def progress_and_checkpoint(self, data: Any) -> None:
        lease = data.draw(st.sampled_from(self.runs[-6:]))
        job_id, fence = lease.claimed.id, lease.claimed.fence
        owned = self.owner.get(job_id) == lease.name
        before = self._view(job_id)
        assert self.lab.progress(lease.worker, job_id, fence) == (0 if owned else 1)
        assert self.lab.checkpoint(lease.worker, job_id, fence) == owned
        if not owned:
            assert self._view(job_id) == before

    # Upkeep

    @rule(job_id=ids, late_beat=st.booleans())
    def lapse_and_recover(self, job_id: str, late_beat: bool) -> None:
        self.lab.lapse(job_id)
        orders = lapse_orders(self.lab.lapsed())
        owner = self.owner.get(job_id)
        if late_beat and owner:
            self.lab.beat(owner[0], (job_id, owner[1]))
        for one, answer in zip(orders, self.lab.settle(*orders), strict=True):
            held = owner is not None and late_beat and one.job_id == job_id
            assert answer == ("renewed" if held else "ok")
            if not held:
                self.owner.pop(one.job_id, None)

    @rule(worker=workers)
    def recover_a_dead_daemon(self, worker: str) -> None:
        mine = {job_id for job_id, owner in self.owner.items() if owner[0] == worker}
        others = {job_id: view for job_id, view in self._views().items() if job_id not in mine}
        orders = lapse_orders(self.lab.lapsed(dead_worker=worker), "dead")
        assert {one.job_id for one in orders} == mine
        assert set(self.lab.settle(*orders)) <= {"ok"}
        for job_id in mine:
            self.owner.pop(job_id)
        after = self._views()
        for job_id, view in others.items():
            assert after[job_id] == view or view.ended or not view.job, job_id

    @rule(due=st.booleans())
    def promote(self, due: bool) -> None:
        keys = self.lab.keys
        if due:
            for key, moment in ((keys.scheduled, 1000), (keys.missing, self.lab.now() - 2)):
                for job_id in self.lab.raw.zrange(key, 0, -1):
                    self.lab.raw.zadd(key, {job_id: moment})
        self.lab.promote()
        if due:
            assert self.lab.raw.exists(keys.scheduled) == 0

    @rule()
    def walk(self) -> None:
        before = self._views()
        reports = self.lab.walk(max_age=1e12)
        for job_id, what in reports:
            view = before[job_id]
            assert {"persisted": bool(view.places), "ttl": view.ended, "restored": not view.places}[what]
            if what == "restored":
                # Nobody takes an acknowledged job out of its index.
                assert job_id not in self.acknowledged or job_id in self.foreign
        after = self.lab.snapshot()
        self.lab.walk(max_age=1e12)
        assert self.lab.snapshot() == after

    # What holds after every step

    @invariant()
    def holds(self) -> None:
        views = self._views()
        for job_id, view in views.items():
            self._reconciled(job_id, view)
            self._one_index(job_id, view)
            self._attempts(job_id, view)
            assert self.endings[job_id] <= self.enqueues[job_id], job_id
            owner = (view.job.get("worker"), int(view.job.get("fence", "0")))
            assert ("active" in view.places and owner == self.owner.get(job_id)) or job_id not in self.owner, view
        self.may_charge.clear()
        dead = self.lab.dead()
        assert len(dead) == len(set(dead)) <= 3
        if self.counts_hold:
            counts = self.lab.counters()
            ended = counts["completed"] + counts["failed"] + counts["cancelled"]
            assert counts["entered"] == ended + sum(view.entered for view in views.values()), views
            assert ended == sum(self.endings.values())

    def _reconciled(self, job_id: str, view: View) -> None:
        status = view.job.get("status", "")
        if view.ended or not view.job:
            clean = not view.places
        else:
            clean = (
                len(view.places) == 1 and status in STATUS_IN[view.places[0]] and not view.reborn and view.ttl == -1
                and (view.places[0] != "active" or job_id in self.owner)
            )  # fmt: skip
        if clean:
            self.foreign.discard(job_id)

    def _one_index(self, job_id: str, view: View) -> None:
        if job_id in self.acknowledged:
            assert view.job, job_id
            assert view.places, (job_id, view)
        if job_id in self.foreign:
            return
        if view.ended:
            assert view.places == []
            assert view.ttl > 0
        elif job_id in self.acknowledged:
            assert len(view.places) == 1, (job_id, view)
            assert view.job["status"] in STATUS_IN[view.places[0]], (job_id, view)
            assert view.ttl == -1

    def _attempts(self, job_id: str, view: View) -> None:
        attempts = int(view.job.get("attempts", "0"))
        assert attempts <= MAX_ATTEMPTS
        before = self.charged.get(job_id, 0)
        assert attempts <= before or (job_id in self.may_charge and attempts == before + 1), (job_id, view)
        self.charged[job_id] = attempts
