"""Two versions of jobqd on one queue, as in every deploy and every way back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from tests.fault.clients import Client, client
from tests.fault.laboratory import Laboratory
from tests.fault.previous import NoPreviousError, export, previous_commit
from tests.support.daemon import ROOT, Daemon
from tests.support.waiting import eventually

pytestmark = pytest.mark.each_redis

NEWER = """
from handlers import handlers, runs
import os
from jobqd import Job

@handlers.job("newcomer")
async def newcomer(job: Job):
    runs.start(job)
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}
"""
LEASE = 0.5


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The previous version's place for PYTHONPATH."""
    try:
        return export(tmp_path_factory.mktemp("previous"))
    except NoPreviousError as reason:
        if "JOBQD_PREVIOUS" in os.environ:
            raise
        pytest.skip(f"no previous version to compare with: {reason}")


class Sides:
    """The two versions, their daemons and their clients. The new one has a handler that the old one does not know."""

    def __init__(self, lab: Laboratory, previous: Path, clients: dict[str, Client]) -> None:
        self._lab = lab
        self._packages = {"old": previous, "new": ROOT / "daemon"}
        self.clients = clients
        (lab.directory / "newer.py").write_text(NEWER)

    def start(self, side: str, instance: str) -> Daemon:
        """Start a daemon of one version; an instance that died before, of whichever version, is its predecessor."""
        handlers = {"old": "handlers:handlers", "new": "newer:handlers"}[side]
        return self._lab.start(
            instance, package=self._packages[side], handlers=handlers, lease=f"{LEASE}s", drain_timeout="0s"
        )


class Traffic:
    """Jobs with every outcome, from producers of every kind; it remembers what the checker has to know."""

    def __init__(self, lab: Laboratory, clients: dict[str, Client], random: Random) -> None:
        self._lab, self._clients, self._random = lab, clients, random
        self.flaky: set[str] = set()
        self.snoozed: set[str] = set()
        self.hopeless: set[str] = set()
        self.newcomers: set[str] = set()
        self.revived: Counter[str] = Counter()

    def send(self, count: int) -> None:
        """Enqueue so many jobs, and cancel some, running or not."""
        kinds = {
            "effect": None, "flaky": self.flaky, "snoozes": self.snoozed, "hopeless": self.hopeless, "reports": None,
            "newcomer": self.newcomers,
        }  # fmt: skip
        for _ in range(count):
            kind = self._random.choices(list(kinds), (6, 2, 2, 1, 1, 1))[0]
            job_id = self._enqueue(kind)
            members = kinds[kind]
            if members is not None:
                members.add(job_id)
            if kind == "effect" and self._random.random() < 0.3:
                self._random.choice(list(self._clients.values())).cancel(job_id)

    def _enqueue(self, kind: str) -> str:
        fields: dict[str, object] = {"effect": {"seconds": 0.2}, "reports": {"times": 5}}.get(kind, {})
        side = self._random.choice(["raw", *self._clients])
        if side == "raw":
            return self._lab.put(1, kind, **fields)[0]
        options = self._random.choice([{}, {"delay": 0.2}, {"priority": 5}])
        job_id = self._clients[side].enqueue(kind, fields, **options)
        self._lab.acknowledged.add(job_id)
        return job_id

    def revive(self, side: str) -> None:
        """Put the dead letters back into the queue by the client of one version; they die again."""
        ended = [job_id for job_id in sorted(self.hopeless) if self._status(job_id) == "failed"]
        answers = self._clients[side].retry_dead(ended)
        self.revived.update(job_id for job_id, answer in answers.items() if answer == "retried")

    def _status(self, job_id: str) -> str:
        return str(self._lab.redis.hget(self._lab.keys.job(job_id), "status"))


@pytest.fixture
def sides(lab: Laboratory, previous: Path) -> Iterator[Sides]:
    with ExitStack() as stack:
        packages = {"old": previous, "new": ROOT / "daemon"}
        clients = {side: stack.enter_context(client(package, lab.server.url)) for side, package in packages.items()}
        yield Sides(lab, previous, clients)


def run_dry(lab: Laboratory, traffic: Traffic) -> None:
    """Return when all has ended that the old version has handlers for."""
    lab.wait_ended(lab.acknowledged - traffic.newcomers, timeout=60)


def deploy_and_roll_back(lab: Laboratory, sides: Sides, traffic: Traffic, load: int) -> None:
    """Each step replaces one daemon by one of the other version while jobs run; the last brings the new one back."""
    first, second = sides.start("old", "a"), sides.start("old", "b")
    traffic.send(load)
    assert second.stop() == 0
    second = sides.start("new", "b")
    traffic.send(load)
    first.kill()
    traffic.revive("new")
    first = sides.start("new", "a")
    traffic.send(load)
    second.kill()
    traffic.revive("old")
    second = sides.start("old", "b")
    # Each gets jobs whose leases the other's version wrote.
    for paused in (first, second):
        traffic.send(load)
        paused.signal(signal.SIGSTOP)
        lab.hold(2.5 * LEASE)
        paused.signal(signal.SIGCONT)
    assert first.stop() == 0
    first = sides.start("old", "a")
    traffic.send(load)
    run_dry(lab, traffic)
    held = lab.redis.zrange(lab.keys.held_for("type:newcomer"), 0, -1)
    eventually(lambda: lab.redis.zcard(lab.keys.ready) == 0)
    assert set(held) <= traffic.newcomers
    assert held, "nothing waited for the new version"
    second.kill()
    sides.start("new", "b")
    lab.wait_ended(timeout=60)


def script_errors(lab: Laboratory) -> int:
    """Return how many scripts ended in an error, as Redis counts; one that it does not know yet is none."""
    commands, errors = lab.redis.info("commandstats"), lab.redis.info("errorstats")
    failed = sum(commands.get(f"cmdstat_{name}", {}).get("failed_calls", 0) for name in ("eval", "evalsha"))
    return int(failed - errors.get("errorstat_NOSCRIPT", {"count": 0})["count"])


@pytest.mark.parametrize(
    ("seed", "load"), [(1, 25), *(pytest.param(seed, 150, marks=pytest.mark.long) for seed in (2, 3))]
)
@pytest.mark.timeout(240)
def test_row_30_a_deploy_and_the_way_back_under_load(lab: Laboratory, sides: Sides, seed: int, load: int) -> None:
    traffic = Traffic(lab, sides.clients, Random(seed))
    began = time.monotonic()
    deploy_and_roll_back(lab, sides, traffic, load)
    figures = lab.check(
        "row 30", f"{previous_commit()[:7]} and this version: deploy, kill -9, pauses, roll back, seed {seed}, "
        f"{time.monotonic() - began:.0f} s",
        expected_to_fail=frozenset(traffic.flaky | traffic.hopeless), snoozed=frozenset(traffic.snoozed),
        earlier={job_id: ["failed"] * times for job_id, times in traffic.revived.items()},
    )  # fmt: skip
    assert figures.duplicates > 0, "no run was lost: nothing was deployed under load"
    assert traffic.revived
    for daemon in lab.shop.daemons:
        bad = [daemon.of(event) for event in ("redis.away", "job.broke", "job.dropped", "job.not_recorded")]
        assert bad == [[], [], [], []], daemon.log
    assert script_errors(lab) == 0


@pytest.mark.long
@pytest.mark.parametrize(("first", "then"), [("old", "new"), ("new", "old")])
def test_row_30_a_dead_letter_of_one_version_is_listed_once(
    lab: Laboratory, sides: Sides, first: str, then: str
) -> None:
    daemon = sides.start(first, "a")
    ids = lab.put(3, "hopeless")
    lab.wait_ended(ids)
    assert daemon.stop() == 0
    daemon = sides.start(then, "a")
    sides.clients[first].retry_dead(ids[:1])
    sides.clients[then].retry_dead(ids[1:2])
    # As a raw producer: the same id once more.
    lab.shop.producer.put(ids[2], "hopeless")
    eventually(lambda: lab.ledger.count("start") == 6, "three more runs")
    lab.wait_ended(ids)
    eventually(lambda: len(lab.redis.lrange(lab.keys.dead, 0, -1)) >= 3)
    lab.check(
        f"row 30 dead letters, {first} first", "failed under one version, again under the other", without="A",
        expected_to_fail=frozenset(ids), earlier={job_id: ["failed"] for job_id in ids},
    )  # fmt: skip
    assert sorted(lab.redis.lrange(lab.keys.dead, 0, -1)) == sorted(ids)
    history = lab.redis.hget(lab.keys.job(ids[0]), "_history").splitlines()
    assert [json.loads(line)["error"] for line in history] == ["for good"] * 2
