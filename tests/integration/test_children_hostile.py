"""What a handler in a process of its own may raise: a failure that says what it was, and no crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.servers import newest_server
from tests.support.workshop import Workshop, workshop

HANDLERS = """
import sys

from jobqd import Queue

class Busy(Retry):
    def __init__(self): pass

class Later(Snooze):
    def __init__(self): pass

@handlers.job("raises", process=True, max_attempts=1)
async def raises(what: str):
    raise {
        "lease lost": LeaseLost("out of nothing"), "busy": Busy(), "long exit": SystemExit("x" * 10_000_000),
        "long text": ValueError("x" * 10_000_000), "long name": type("X" * 5_000_000, (Exception,), {})("why"),
    }[what]

async def exits():
    sys.exit(3)

@handlers.job("awaits", process=True, max_attempts=1)
async def awaits():
    await asyncio.gather(exits())

@handlers.job("leaves", process=True, max_attempts=1)
async def leaves():
    await asyncio.wait([asyncio.create_task(exits())])
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return "done"

@handlers.job("enqueues", process=True)
async def enqueues(job: Job):
    async with Queue.from_env() as queue:
        await queue.enqueue("quick", id="enqueued from there")
    return (await job.exec("sh", "-c", "echo ${JOBQD_REDIS_PASSWORD-none} ${JOBQD_REDIS_URL-none}")).output

@handlers.job("quick")
async def quick(): pass

@handlers.job("snoozes", process=True)
async def snoozes():
    raise Later
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with newest_server() as server, workshop(server, tmp_path_factory.mktemp("hostile"), HANDLERS) as place:
        place.start(concurrency=4)
        yield place


def daemon_of(place: Workshop) -> Daemon:
    return place.daemons[0]


@pytest.mark.parametrize(
    ("what", "error", "error_type"),
    [
        ("lease lost", "out of nothing", "LeaseLost"), ("busy", "Busy", "Retry"),
        ("long exit", f"the handler called sys.exit('{'x' * 998}…)", "SystemExit"),
        ("long text", "x" * 3999 + "…", "ValueError"), ("long name", "why", "X" * 199 + "…"),
    ],
)  # fmt: skip
def test_what_it_raises_is_a_failure_that_says_so(place: Workshop, what: str, error: str, error_type: str) -> None:
    job = place.producer.run(what, "raises", what=what)
    assert (job["status"], job["error"], job["error_type"]) == ("failed", error, error_type)
    assert "crashes" not in job


def test_a_subclass_of_snooze_that_keeps_its_delay_to_itself_snoozes(place: Workshop) -> None:
    place.producer.put("snoozes", "snoozes")
    assert "attempts" not in place.producer.wait("snoozes", "scheduled")


def test_it_may_enqueue_and_its_programs_do_not_learn_the_password(tmp_path: Path) -> None:
    with newest_server() as server, workshop(server, tmp_path, HANDLERS) as place:
        place.producer.redis.ping()
        place.producer.redis.config_set("requirepass", "S3cr")  # whoever is connected stays so
        place.start(redis_password="S3cr")
        job = place.producer.run("enqueues", "enqueues")
        assert job["result"] == json.dumps(f"none {server.url}\n")
        assert place.producer.wait("enqueued from there")["status"] == "completed"


def test_a_task_that_exits_tells_the_same_as_in_the_daemon(place: Workshop) -> None:
    job = place.producer.run("awaits", "awaits")
    assert (job["status"], job["error"]) == ("failed", "the handler called sys.exit(3)")
    assert "crashes" not in job


def test_neither_a_task_that_exits_nor_a_stop_of_the_loop_ends_a_run(place: Workshop) -> None:
    job = place.producer.run("leaves", "leaves")
    assert (job["status"], job["result"]) == ("completed", '"done"')
    told = [line["problem"] for line in daemon_of(place).of("loop.exit_refused", job_id="leaves")]
    assert told == ["raised SystemExit(3)", "stopped the event loop"]
