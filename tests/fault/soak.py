"""Hours of everything at once: `python -m tests.fault.soak --seed 7 --minutes 60`; a line a round, exit 1 at a find."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from jobqd import SyncQueue
from tests.fault.figures import published, quantile
from tests.fault.laboratory import Laboratory, laboratory, release
from tests.fault.nemesis import Nemesis
from tests.fault.proxy import proxy
from tests.fault.strikes_daemon import BLOCK_LIMIT, DaemonStrikes
from tests.fault.strikes_redis import ARGUMENTS, PASSWORD, USER, NetworkStrikes, RedisStrikes
from tests.fault.workload import Workload
from tests.redis_server import binaries
from tests.support.daemon import Daemon
from tests.support.waiting import eventually

LEASE = "1s"
_WARM_UP = 3
_GROWTH = 12 * 2**20
_FILES = 6
RECOVERED = 2.0
"""Seconds of work from the repair of a fault until a new job is done, after what has to pass first (`DUE`)."""
DUE = 12.0
"""A reply that never comes, 5 s, twice in a row; the first lease of a daemon that has to earn trust anew; the sweep."""


class Soak:
    """Rounds of jobs under random faults; in each, whatever happened, every job ends and the books are right.

    One daemon lives through all of it: its memory and file descriptors must stay flat.
    """

    def __init__(self, lab: Laboratory, nemesis: Nemesis, workload: Workload, steady: Daemon, random: Random) -> None:
        self._lab, self._nemesis, self._workload = lab, nemesis, workload
        self._steady, self._random = steady, random
        self.memory: list[int] = []
        self.files: list[int] = []
        self.sums: Counter[str] = Counter()
        self.recoveries: list[float] = []

    def round(self, number: int) -> str:
        """Play one round and check it; returns its line."""
        lab, workload = self._lab, self._workload
        struck = []
        for _ in range(self._random.randint(2, 5)):
            workload.send(self._random.randint(5, 25))
            struck.append(self._nemesis.strike())
        lab.wait_ended(timeout=90)
        eventually(lambda: at_rest(lab), "an end of what was enqueued and not acknowledged", 60)
        figures = lab.check(
            f"round {number}", ", ".join(struck), expected_to_fail=frozenset(workload.failing),
            snoozed=frozenset(workload.snoozed), tight=True, due=DUE, bound=RECOVERED,
        )  # fmt: skip
        for name in ("jobs", "runs", "duplicates", "refused"):
            self.sums[name] += getattr(figures, name)
        self.recoveries += figures.recoveries
        self._clear()
        self.memory.append(_resident(self._steady.pid))
        self.files.append(len(list(Path(f"/proc/{self._steady.pid}/fd").iterdir())))
        return figures.line()

    def _clear(self) -> None:
        lab = self._lab
        keys = lab.keys
        lab.redis.delete(keys.counters, keys.finished, keys.dead, f"{keys.dead}:ids", *lab.redis.keys(keys.job("*")))
        self._workload.forget()
        lab.acknowledged.clear()
        lab.faults.clear()
        lab.outages.clear()
        lab.ledger.clear()
        published.clear()

    def growth(self) -> tuple[int, int]:
        """Return how much memory (bytes) and how many descriptors the steady daemon has gained since it was warm."""
        warm = min(_WARM_UP, len(self.memory) - 1)
        return self.memory[-1] - self.memory[warm], self.files[-1] - self.files[warm]

    def flat(self) -> bool:
        """Whether memory and descriptors are as they were."""
        memory, files = self.growth()
        return memory < _GROWTH and files < _FILES

    def line(self) -> str:
        """Return the figures of all rounds."""
        memory, files = self.growth()
        sums = ", ".join(f"{name} {count}" for name, count in self.sums.items())
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self._nemesis.count.items()))
        return (
            f"{len(self.memory)} rounds, {self._nemesis.count.total()} faults ({faults}) | {sums}, recovery p50 "
            f"{quantile(self.recoveries, 0.5)} p99 {quantile(self.recoveries, 0.99)} | memory "
            f"{self.memory[-1] / 2**20:.1f} MiB ({memory / 2**20:+.1f}), file descriptors {self.files[-1]} ({files:+d})"
        )


def at_rest(lab: Laboratory) -> bool:
    """Whether no job waits or runs."""
    keys = lab.keys
    return not lab.redis.exists(keys.ready, keys.active, keys.scheduled, keys.held)


@contextmanager
def soaking(version: str, directory: Path, seed: int) -> Iterator[Soak]:
    """A soak by a seed, on a Redis that keeps its writes."""
    random = Random(seed)
    with (
        laboratory(version, directory, "--appendonly", "yes", "--appendfsync", "always", *ARGUMENTS) as lab,
        proxy(lab.server.socket, seed) as net,
        SyncQueue.from_url(lab.server.url, retry_for="5s") as queue,
    ):
        settings = {
            "lease": LEASE, "redis_url": net.url, "redis_username": USER, "redis_password": PASSWORD, "max_crashes": 3,
            "retry_max_delay": "2s", "drain_timeout": "1s",
        }  # fmt: skip
        # The steady one takes few jobs, so that most are in the hands of the one that is struck, and none that ends it.
        steady = lab.start("steady", **{**settings, "concurrency": 4, "handlers": "handlers:handlers"})
        workload = Workload(lab, queue, random)

        def victim() -> Daemon:
            return lab.start("victim", block_limit=f"{BLOCK_LIMIT}s", **settings)

        strikes = (
            *DaemonStrikes(lab, random, workload, victim, steady).all, *NetworkStrikes(lab, net, random).all,
            *RedisStrikes(lab, random).all,
        )  # fmt: skip
        yield Soak(lab, Nemesis(lab, random, strikes), workload, steady, random)


def main() -> int:
    """Soak for some minutes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--redis", choices=sorted(binaries()), default=max(binaries(), key=release, default=None))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, Redis {arguments.redis}", flush=True)
    end = time.monotonic() + 60 * arguments.minutes
    with (
        tempfile.TemporaryDirectory(prefix="jq") as directory,
        soaking(arguments.redis, Path(directory), arguments.seed) as soak,
    ):
        number = 0
        while time.monotonic() < end:
            number += 1
            try:
                soak.round(number)
            except AssertionError as error:
                print(f"seed {arguments.seed}, round {number}: {error}", flush=True)
                return 1
            sys.stdout.flush()
        print(f"seed {arguments.seed}, Redis {arguments.redis}: {soak.line()}")
        return 0 if soak.flat() else 1


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
