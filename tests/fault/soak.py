"""Hours of everything at once: `python -m tests.fault.soak --seed 7 --minutes 60`; a line a round, exit 1 at a find."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import redis

from tests.fault.laboratory import Laboratory, laboratory, release
from tests.fault.nemesis import Nemesis
from tests.fault.proxy import proxy
from tests.redis_server import binaries
from tests.support.daemon import Daemon

LEASE = "1s"
_WARM_UP = 3
_GROWTH = 12 * 2**20
_FILES = 6


class Soak:
    """Rounds of jobs under random faults; in each, whatever happened, every job ends and the books are right.

    One daemon lives through all of it: its memory and file descriptors must stay flat.
    """

    def __init__(self, lab: Laboratory, nemesis: Nemesis, steady: Daemon, random: Random) -> None:
        self._lab, self._nemesis, self._steady, self._random = lab, nemesis, steady, random
        self.memory: list[int] = []
        self.files: list[int] = []
        self.jobs = self.duplicates = self.refused = 0

    def round(self, number: int) -> str:
        """Play one round and check it; returns its line."""
        lab = self._lab
        flaky: set[str] = set()
        struck = []
        for _ in range(self._random.randint(2, 5)):
            self._enqueue(flaky)
            struck.append(self._nemesis.strike())
        lab.wait_ended(timeout=90)
        figures = lab.check(f"round {number}", ", ".join(struck), expected_to_fail=frozenset(flaky))
        self.jobs += figures.jobs
        self.duplicates += figures.duplicates
        self.refused += figures.refused
        self._clear()
        self.memory.append(_resident(self._steady.pid))
        self.files.append(len(list(Path(f"/proc/{self._steady.pid}/fd").iterdir())))
        return figures.line()

    def _enqueue(self, flaky: set[str]) -> None:
        for _ in range(self._random.randint(5, 25)):
            job_type = self._random.choice(("effect", "effect", "effect", "flaky", "reports"))
            fields: dict[str, Any] = {"effect": {"seconds": f"{self._random.uniform(0, 0.6):.3f}"}}.get(job_type, {})
            try:
                ids = self._lab.put(1, job_type, **fields)
            except redis.RedisError:
                # Not acknowledged: it may run or not.
                continue
            if job_type == "flaky":
                flaky.update(ids)

    def _clear(self) -> None:
        lab = self._lab
        keys = lab.keys
        lab.redis.delete(keys.counters, keys.finished, keys.dead, *lab.redis.keys(keys.job("*")))
        lab.acknowledged.clear()
        lab.faults.clear()
        lab.ledger.clear()

    def growth(self) -> tuple[int, int]:
        """Return how much memory (bytes) and how many descriptors the steady daemon has gained since it was warm."""
        warm = min(_WARM_UP, len(self.memory) - 1)
        return self.memory[-1] - self.memory[warm], self.files[-1] - self.files[warm]

    def flat(self) -> bool:
        """Whether memory and descriptors are as they were."""
        memory, files = self.growth()
        return memory < _GROWTH and files < _FILES


@contextmanager
def soaking(version: str, directory: Path, seed: int) -> Iterator[Soak]:
    """A soak by a seed, on a Redis that keeps its writes."""
    random = Random(seed)
    with (
        laboratory(version, directory, "--appendonly", "yes", "--appendfsync", "always") as lab,
        proxy(lab.server.socket, seed) as net,
    ):
        settings = {"lease": LEASE, "redis_url": net.url, "retry_max_delay": "2s", "drain_timeout": "1s"}
        # The steady one takes few jobs, so that most are in the hands of the one that is struck.
        steady = lab.start("steady", concurrency=4, **settings)
        yield Soak(lab, Nemesis(lab, net, random, lambda: lab.start("victim", **settings)), steady, random)


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
        memory, files = soak.growth()
        print(
            f"seed {arguments.seed}, Redis {arguments.redis}: {number} rounds, jobs {soak.jobs}, duplicates "
            f"{soak.duplicates}, refused {soak.refused}, memory {soak.memory[-1] / 2**20:.1f} MiB "
            f"({memory / 2**20:+.1f}), file descriptors {soak.files[-1]} ({files:+d})"
        )
        return 0 if soak.flat() else 1


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
