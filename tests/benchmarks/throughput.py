"""No-op jobs a second through one daemon, beside bare Lua scripts that do the same writes, in one run.

    python -m tests.benchmarks.throughput [--jobs 30000] [--rounds 3] [--concurrency 100]

Both drain the same number of jobs from the same Redis, in turn; the figures are medians. The bare drains call claim and
settle with no daemon code around them (no handlers, no tasks, no logs, no heartbeat), three side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from jobqd.keys import Keys, Seat
from jobqd.retry import Settlement
from jobqd.store import Link, Target, producing, running
from tests.redis_server import RedisServer, binaries

DRAINS = 3
HANDLERS = """
from jobqd import Handlers
handlers = Handlers()

@handlers.job
async def noop() -> None:
    return None
"""


async def fill(link: Link, keys: Keys, jobs: int) -> None:
    await link.command("FLUSHALL")
    for first in range(0, jobs, 500):
        batch = [
            producing.NewJob(f"0192d5a1-0000-7000-8000-{number:012d}", 10, {"type": "noop", "payload": "{}"})
            for number in range(first, min(first + 500, jobs))
        ]
        await link.run(producing.enqueue(keys, batch, max_ready=10**9))


async def bare(url: str, keys: Keys, jobs: int, batch: int) -> float:
    """Several drains side by side, so that Redis never waits for this program."""
    began = time.perf_counter()
    await asyncio.gather(*(drain(url, keys, f"bare-{number}", batch) for number in range(DRAINS)))
    return jobs / (time.perf_counter() - began)


async def drain(url: str, keys: Keys, worker: str, batch: int) -> None:
    link, number = Link(Target(url)), 0
    while True:
        number += 1
        claims = await link.run(running.claim(Seat(keys, worker, 15), number, batch, 1e6, {"noop": -1}))
        if not claims.jobs:
            break
        orders = [
            Settlement(job.id, worker, job.fence, "completed", "attempts", ttl=86400, result="null")
            for job in claims.jobs
        ]
        await link.run(running.settle(keys, orders, dead_max=100, trimmed_ttl=100))
    await link.close()


async def daemon(link: Link, keys: Keys, jobs: int, url: str, concurrency: int, directory: Path) -> float:
    environ = os.environ | {
        "JOBQD_REDIS_URL": url, "JOBQD_CONCURRENCY": str(concurrency), "JOBQD_RUNTIME_DIR": str(directory),
        "JOBQD_APP_DIR": str(directory),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobqd.cli.daemon", "run", cwd=directory, env=environ, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        return await measure(link, keys, jobs, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def measure(link: Link, keys: Keys, jobs: int, process: asyncio.subprocess.Process) -> float:
    """From 10 % to 90 % of the jobs, so that start and stop do not count."""
    low, high, marks = jobs // 10, jobs * 9 // 10, {}
    while high not in marks:
        if process.returncode is not None:
            sys.exit(f"the daemon ended with status {process.returncode}: try jobqd check in this checkout")
        done = int(await link.command("HGET", keys.counters, "completed") or 0)
        for mark in (low, high):
            if done >= mark and mark not in marks:
                marks[mark] = (time.perf_counter(), done)
        await asyncio.sleep(0.005)
    (began, first), (ended, last) = marks[low], marks[high]
    return (last - first) / (ended - began)


async def main(jobs: int, rounds: int, concurrency: int) -> None:
    with tempfile.TemporaryDirectory(prefix="jobqd-bench-") as name:
        directory = Path(name)
        (directory / "handlers.py").write_text(HANDLERS)
        for version, binary in binaries().items():
            with RedisServer(binary) as server:
                await compare(version, server.url, directory, jobs, rounds, concurrency)


async def compare(version: str, url: str, directory: Path, jobs: int, rounds: int, concurrency: int) -> None:
    link, keys = Link(Target(url)), Keys()
    scripts, daemons = [], []
    for _ in range(rounds):
        await fill(link, keys, jobs)
        scripts.append(await bare(url, keys, jobs, concurrency))
        await fill(link, keys, jobs)
        daemons.append(await daemon(link, keys, jobs, url, concurrency, directory))
    await link.close()
    bare_rate, rate = statistics.median(scripts), statistics.median(daemons)
    print(
        f"{version}: bare scripts {bare_rate:8.0f}/s   daemon {rate:8.0f}/s   ratio {rate / bare_rate:.2f}   "
        f"({jobs} jobs, {rounds} rounds, {concurrency} workers)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=100)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.jobs, arguments.rounds, arguments.concurrency))
