"""What a handler, or a library under it, may raise or do to the loop: its own job fails, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
class Evil(BaseException):
    def __str__(self):
        raise self
    __repr__ = __str__

@handlers.job("quick")
async def quick(): return 1

async def raising(error):
    raise error

def error_of(what):
    return {"itself": Evil(), "exit of itself": SystemExit(Evil()), "exit": SystemExit(3)}[what]

@handlers.job("snoozes_for_ever")
async def snoozes_for_ever():
    raise Snooze(1e300)

@handlers.job("raises", max_attempts=1)
async def raises(what: str):
    raise error_of(what)

@handlers.job("awaits", max_attempts=1)
async def awaits(what: str):
    await asyncio.gather(raising(error_of(what)))

@handlers.job("leaves", max_attempts=1)
async def leaves(job: Job, what: str):
    task = asyncio.create_task(raising(error_of(what)))
    await asyncio.wait([task])

@handlers.job("stops_loop")
async def stops_loop(how: str):
    loop = asyncio.get_running_loop()
    if how == "at once":
        loop.stop()
    elif how == "in a callback":
        loop.call_soon(loop.stop)
    else:
        for _ in range(50):
            loop.stop()
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return how

from typing import Annotated
from pydantic import AfterValidator

def broken_check(value: int) -> int:
    raise Evil

@handlers.job("broken_check", max_attempts=1)
async def broken_check_handler(n: Annotated[int, AfterValidator(broken_check)]): pass
"""


FLOOD_HANDLERS = """
@handlers.job("quick")
async def quick(): return 1

async def raising():
    raise SystemExit(3)

async def failing():
    raise OSError("nobody asks")

@handlers.job("exits", max_attempts=1)
async def exits():
    await asyncio.gather(raising())

@handlers.job("leaves", max_attempts=1)
async def leaves():
    asyncio.create_task(failing())

@handlers.job("dies", max_attempts=1)
async def dies():
    raise Fail("dead")

@handlers.on_dead
async def tell(dead):
    raise RuntimeError("no mail today")

from typing import Annotated
from pydantic import AfterValidator

def broken_check(value: int) -> int:
    raise KeyboardInterrupt

@handlers.job("broken_check", max_attempts=1)
async def broken_check_handler(n: Annotated[int, AfterValidator(broken_check)] = 1): pass
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One daemon for the whole module: whatever was done to it before, it serves the next test."""
    with newest_server() as server, workshop(server, tmp_path_factory.mktemp("hostile"), HANDLERS) as place:
        daemon = place.start(concurrency=4)
        yield place
        assert daemon.stop() == 0, daemon.log


def unharmed(place: Workshop, job_id: str) -> None:
    """The daemon is alive, with all of its workers."""
    daemon = place.daemons[0]
    assert place.producer.run(f"after {job_id}", "quick")["status"] == "completed"
    assert not daemon.ended, daemon.log
    assert not place.producer.redis.zcard("job_queue:active")
    assert "Traceback (most recent call last)" not in "\n".join(
        line for line in daemon.log.splitlines() if not line.startswith("{")
    )


@pytest.mark.parametrize(
    ("job_type", "what", "status"),
    [
        ("raises", "itself", "failed"), ("raises", "exit of itself", "failed"),
        ("awaits", "itself", "failed"), ("awaits", "exit of itself", "failed"), ("awaits", "exit", "failed"),
        ("leaves", "itself", "completed"), ("leaves", "exit of itself", "completed"), ("leaves", "exit", "completed"),
    ],
)  # fmt: skip
def test_an_exception_without_a_text_costs_neither_the_daemon_nor_a_worker(
    place: Workshop, job_type: str, what: str, status: str
) -> None:
    job_id = f"{job_type} {what}"
    assert place.producer.run(job_id, job_type, what=what)["status"] == status
    unharmed(place, job_id)


def test_a_run_that_breaks_with_such_an_exception_ends(place: Workshop) -> None:
    job = place.producer.run("broken", "broken_check", n=1)
    assert (job["status"], job["error_type"]) == ("failed", "Evil")
    assert job["error"] == "the run could not be brought to its end: <Evil whose repr raises Evil>"
    unharmed(place, "broken")


def test_a_snooze_beyond_all_time_is_a_long_one(place: Workshop) -> None:
    place.producer.put("snoozes", "snoozes_for_ever")
    place.producer.wait("snoozes", "scheduled")
    due = place.producer.redis.zscore("job_queue:scheduled", "snoozes")
    assert 90 * 365 * 86400 < due < 1e11  # beyond that it counts as milliseconds
    unharmed(place, "snoozes")


@pytest.mark.parametrize("how", ["at once", "in a callback", "again and again"])
def test_whoever_stops_the_loop_does_not_end_the_daemon(place: Workshop, how: str) -> None:
    assert place.producer.run(f"stops {how}", "stops_loop", how=how)["status"] == "completed"
    place.daemons[0].wait_for("loop.exit_refused", problem="stopped the event loop")
    unharmed(place, f"stops {how}")


@pytest.mark.parametrize(
    ("job_type", "event", "rate"),
    [
        ("exits", "loop.exit_refused", 100), ("leaves", "Task exception was never retrieved", 20),
        ("dies", "hook.failed", 100), ("broken_check", "job.broke", 100),
    ],
)  # fmt: skip
def test_a_flood_of_bad_handlers_is_no_flood_of_lines(tmp_path: Path, job_type: str, event: str, rate: int) -> None:
    count = 1500
    with newest_server() as server, workshop(server, tmp_path, FLOOD_HANDLERS) as place:
        daemon, redis = place.start(concurrency=20), place.producer.redis
        pipe = redis.pipeline(transaction=False)
        for number in range(count):
            pipe.hset(f"job:flood {number}", mapping={"type": job_type, "n": "1"})
            pipe.zadd("job_queue", {f"flood {number}": 1})
        pipe.execute()
        eventually(lambda: not redis.zcard("job_queue") and not redis.zcard("job_queue:active"), timeout=90)
        assert place.producer.run("after", "quick")["status"] == "completed"
        assert daemon.stop() == 0
        lines = [record for record in daemon.records if record["event"].startswith(event)]
        # A second that has begun has its lines at once. How much has to be left out depends on how fast the machine is;
        # each line is either written or counted.
        assert 0 < len(lines) <= rate * (daemon.of("daemon.stopped")[0]["duration"] + 1)
        assert len(lines) + sum(line["count"] for line in daemon.of("job.lines_suppressed")) >= count
