"""How soon an idle daemon picks a job up, and what it costs while idle.

    python -m tests.benchmarks.pickup [--jobs 300] [--idle 10]

Pickup runs from just before a raw ZADD in this process to the handler's first line in the daemon's, on one machine's
clock. Idle: the daemon's CPU time by /proc and the server's own count of commands.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from jobqd.keys import Keys
from jobqd.store import Link, Target
from tests.redis_server import RedisServer, binaries

HANDLERS = """
import os, time
from jobqd import Handlers
handlers = Handlers()
pipe = os.open(os.environ["PICKUP_PIPE"], os.O_WRONLY)

@handlers.job
async def pick(sent: float) -> None:
    os.write(pipe, b"%.9f\\n" % (time.time() - sent))
"""


async def start(url: str, directory: Path, pipe: Path) -> asyncio.subprocess.Process:
    environ = os.environ | {
        "JOBQD_REDIS_URL": url, "JOBQD_RUNTIME_DIR": str(directory), "JOBQD_APP_DIR": str(directory),
        "PICKUP_PIPE": str(pipe),
    }  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobqd.cli.daemon", "run", cwd=directory, env=environ, stderr=asyncio.subprocess.DEVNULL
    )


async def pickup(link: Link, keys: Keys, reader: asyncio.StreamReader, jobs: int) -> list[float]:
    times = []
    for number in range(jobs):
        sent = time.time()
        await link.command("HSET", keys.job(f"p{number}"), "status", "queued", "type", "pick", "sent", f"{sent:.6f}")
        sent = time.time()
        await link.command("HSET", keys.job(f"p{number}"), "sent", f"{sent:.9f}")
        await link.command("ZADD", keys.ready, 10, f"p{number}")
        times.append(float(await reader.readline()) * 1000)
        await asyncio.sleep(0.01)  # the daemon goes idle again
    return sorted(times)


async def commands(link: Link) -> int:
    """Calls that came over a connection: the commands inside scripts are not counted."""
    info = await link.command("INFO", "commandstats")
    counts = re.findall(r"cmdstat_(?:eval|evalsha|client[|]?\w*|ping|info|hget):calls=(\d+)", info)
    return sum(map(int, counts))


async def idle(link: Link, pid: int, seconds: float) -> tuple[float, float]:
    """The daemon's share of a core, and its commands a second (those of this program taken off)."""
    ticks = os.sysconf("SC_CLK_TCK")

    def cpu() -> float:
        parts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / ticks

    first, began = await commands(link), cpu()
    await asyncio.sleep(seconds)
    spent, last = cpu() - began, await commands(link)
    return spent / seconds, (last - first - 1) / seconds


async def measure(version: str, server: RedisServer, directory: Path, jobs: int, seconds: float) -> None:
    pipe = directory / f"pipe-{version}"
    os.mkfifo(pipe)
    link, keys = Link(Target(server.url)), Keys()
    process = await start(server.url, directory, pipe)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.open(pipe, os.O_RDONLY), "rb")
    )
    await pickup(link, keys, reader, 20)
    times = await pickup(link, keys, reader, jobs)
    core, rate = await idle(link, process.pid, seconds)
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    print(
        f"{version}: pickup p50 {statistics.median(times):.2f} ms  p99 {times[int(len(times) * 0.99) - 1]:.2f} ms   "
        f"idle {core * 100:.2f} % of a core, {rate:.1f} commands/s   "
        f"resident {resident:.0f} MiB"
    )
    process.terminate()
    await process.wait()
    await link.close()


async def main(jobs: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="jobqd-bench-") as name:
        directory = Path(name)
        (directory / "handlers.py").write_text(HANDLERS)
        for version, binary in binaries().items():
            with RedisServer(binary) as server:
                await measure(version, server, directory, jobs, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--idle", type=float, default=10.0)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.jobs, arguments.idle))
