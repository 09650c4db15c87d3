"""One scenario: a Redis of its own, daemons, producers, a fault, and in the end the checker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from jobqd.client import Queue
from jobqd.keys import Keys
from tests.fault.books import TERMINAL, Books, read_books
from tests.fault.checker import violations
from tests.fault.figures import Figures, count_duplicates, published, reruns
from tests.fault.handlers import ALL_HANDLERS, HANDLERS
from tests.fault.ledger import RunLedger
from tests.fault.load import LOAD
from tests.fault.outages import TIMEOUTS, Outages
from tests.redis_server import RedisServer, binaries
from tests.support.daemon import Daemon
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop


class Laboratory:
    """What a scenario works with. `acknowledged` are the ids of all enqueues that returned."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.server = shop.server
        self.keys = shop.producer.keys
        self.directory = shop.application.directory
        self.gates = shop.ledger
        self.ledger = RunLedger(self.directory)
        self.acknowledged: set[str] = set()
        self.faults: list[float] = []
        self.outages: list[float] = []
        """For each outage that ended: how long after it the first job ended."""
        self._outages = Outages()
        self._numbers = iter(range(1_000_000))

    @property
    def redis(self) -> Any:
        return self.shop.producer.redis

    def start(self, instance: str = "a", **settings: object) -> Daemon:
        """Start a daemon that retries soon; returns when it is ready."""
        return self.daemon(instance, **settings).start()

    def daemon(self, instance: str = "a", **settings: object) -> Daemon:
        """Return a daemon that is not started yet."""
        calm = {"retry_delay": "50ms", "max_crashes": 10, "concurrency": 16, "handlers": ALL_HANDLERS}
        return self.shop.daemon("--instance", instance, **{**calm, **settings})

    def put(self, count: int, job_type: str = "effect", **fields: object) -> list[str]:
        """Enqueue so many jobs as a raw producer does; returns the ids."""
        ids = [self.new_id(job_type) for _ in range(count)]
        for job_id in ids:
            self.shop.producer.put(job_id, job_type, **fields)
            self.acknowledged.add(job_id)
        return ids

    def new_id(self, job_type: str) -> str:
        """Return an id that was not used before."""
        return f"{job_type}{next(self._numbers)}"

    def queue(self, url: str | None = None) -> Queue:
        """Return a client of this queue; close it."""
        return Queue.from_url(url or self.server.url, key_prefix=self.keys.prefix)

    def wait_started(self, count: int) -> None:
        """Return when so many runs have begun, by the ledger."""
        eventually(lambda: self.ledger.count("start") >= count, f"{count} starts, {self.ledger.count('start')} so far")

    def wait_ended(self, ids: Any = None, timeout: float = 30.0) -> None:
        """Return when all acknowledged jobs, or these, have ended."""
        wanted = sorted(self.acknowledged if ids is None else ids)

        def left() -> list[str]:
            pipe = self.redis.pipeline(transaction=False)
            for job_id in wanted:
                pipe.hget(self.keys.job(job_id), "status")
            try:
                statuses = pipe.execute()
            except redis.RedisError:
                return wanted
            return [job for job, status in zip(wanted, statuses, strict=True) if status not in TERMINAL]

        try:
            eventually(lambda: not left(), "every job ends", timeout)
        except AssertionError as error:
            still = {job_id: self.redis.hgetall(self.keys.job(job_id)) for job_id in left()[:5]}
            logs = "\n".join(map(_troubles, self.shop.daemons))
            raise AssertionError(f"{error}\n{still}\n{logs}") from None

    def wait_refused(self, count: int) -> None:
        """Return when so many outcomes were refused."""

        def refused() -> int:
            return int(self.redis.hget(self.keys.counters, "refused") or 0)

        eventually(lambda: refused() >= count, f"{count} refused outcomes, {refused()} so far")

    def fault(self) -> None:
        """Take note that the fault strikes now: recovery is measured from the last one."""
        self.faults.append(time.monotonic())

    def hold(self, seconds: float) -> None:
        """Let a fault last for its time."""
        time.sleep(seconds)

    def books(self, **more: Any) -> Books:
        """Read everything that the invariants speak of; nothing may run any more."""
        books = read_books(self.redis, self.keys, self.acknowledged, self.ledger.runs())
        for name, value in more.items():
            setattr(books, name, value)
        return books

    def check(self, title: str, injected: str, *, refused: int | None = None, duplicates: int | None = None,
              crashes: int | None = None, interruptions: int | None = None, bound: float | None = None,
              due: float = 0.0, without: str = "", **more: Any) -> Figures:  # fmt: skip
        """Hold ledger and Redis against each other; returns and prints the figures.

        `refused` is the least number of outcomes that must have been refused, `duplicates` the exact number of runs
        that were lost or interrupted (0: nobody may be charged either), `crashes` and `interruptions` what all jobs
        together must have been charged, `bound` the longest recovery in seconds (R) after what has to pass first
        (`due`: a lease, a timeout), `without` the letters of invariants that this fault is known to break.
        """
        self.wait_refused(refused or 0)
        books = self.books(**more)
        figures = Figures(
            title, injected, len(books.acknowledged), sum(map(len, books.runs.values())), count_duplicates(books),
            books.counters.get("refused", 0), self.outages or reruns(books, self.faults),
        )  # fmt: skip
        print(figures.line())
        published.append(figures.line())
        found = violations(books)
        if duplicates is not None and figures.duplicates != duplicates:
            found.append(f"O: {figures.duplicates} duplicates, {duplicates} expected")
        wanted = {"crashes": crashes, "interruptions": interruptions}
        if duplicates == 0:
            wanted = {name: count or 0 for name, count in wanted.items()}
        found += [
            f"A: {books.charged(name)} {name} were charged, {count} expected"
            for name, count in wanted.items() if count not in (None, books.charged(name))
        ]  # fmt: skip
        if bound is not None and max(figures.recoveries, default=0.0) > due + bound * LOAD:
            limit = f"{due:g} s and {bound:g} s, or {LOAD:g} times that on a machine under load"
            found.append(f"R: recovered after {max(figures.recoveries):.2f} s, the bound is {limit}")
        found = [text for text in found if text[0] not in without]
        crashed = [daemon for daemon in self.shop.daemons if _crashed(daemon)]
        logs = "\n".join(map(_troubles, self.shop.daemons if found else crashed))
        assert not found, "\n".join([figures.line(), *found, logs])
        assert not crashed, logs
        for daemon in self.shop.daemons:
            self._outages.judge(daemon)
        return figures

    def outage(self) -> None:
        """Take note that Redis goes away now."""
        self._outages.begin()

    def outage_over(self, *, noticed: float = TIMEOUTS) -> None:
        """Take note that it is back now, and how long after that a job ends that was put now.

        The daemons have told of it after `noticed` seconds at the latest, if it lasted as long.
        """
        self._outages.end()
        began = time.monotonic()
        self.wait_ended(self.put(1))
        self.outages.append(time.monotonic() - began)
        self._outages.over(noticed)


def _crashed(daemon: Daemon) -> bool:
    """Whether a part of a daemon failed in a way that nobody had expected."""
    # A line that is not the log's own is a traceback, unless it tells why it does not start; a signal that ends the
    # process has it print its stacks.
    lines = [record["text"] for record in daemon.of("") if not record["text"].startswith("jobqd: ")]
    stacks = bool(lines) and lines[0].startswith("Fatal Python error: ")
    return bool(daemon.of("daemon.crashed")) or (bool(lines) and not stacks)


def _troubles(daemon: Daemon) -> str:
    """Return the end of a daemon's log, without the lines of completed jobs, for the message of a failed scenario."""
    lines = [str(record) for record in daemon.records if record["event"] != "job.completed"]
    crash = [record.get("exception", record.get("text")) for record in daemon.records if not record["event"]]
    crash += [record["exception"] for record in daemon.of("daemon.crashed")]
    return "\n".join([*(line[:300] for line in lines[-12:]), *map(str, crash)])


def server_for(version: str, *arguments: str) -> RedisServer:
    """Return a server of this version ("major.minor") that is not started, with the commands that a fault needs."""
    # The option came with 7.0; before, DEBUG is always allowed.
    debug = () if release(version) < (7, 0) else ("--enable-debug-command", "yes")
    return RedisServer(binaries()[version], *debug, *arguments)


def release(version: str) -> tuple[int, ...]:
    """Return a version's numbers, to be compared."""
    return tuple(map(int, version.split(".")))


@contextmanager
def laboratory(version: str, directory: Path, *arguments: str) -> Iterator[Laboratory]:
    """A laboratory on a running server of this version; everything is ended in the end."""
    with server_for(version, *arguments) as server, laboratory_on(server, directory) as lab:
        yield lab


@contextmanager
def laboratory_on(server: RedisServer, directory: Path) -> Iterator[Laboratory]:
    """A laboratory on a server that exists, and may not run yet."""
    with workshop(server, directory, HANDLERS, Keys()) as shop:
        yield Laboratory(shop)
