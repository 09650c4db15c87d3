"""`jobq stats` as a check: one line and an exit status for cron and Nagios."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobqd.keys import Keys
from tests.redis_server import RedisServer
from tests.support.daemon import ROOT
from tests.support.forked import run_jobq
from tests.support.producer import Producer, producer
from tests.support.servers import newest_server

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with newest_server() as server:
        yield server


@pytest.fixture
def queue(server: RedisServer) -> Iterator[Producer]:
    with producer(server, Keys()) as made:
        made.redis.flushall()
        yield made


@pytest.fixture
def stats(server: RedisServer, tmp_path: Path) -> Run:
    def run(*arguments: str, url: str = server.url) -> subprocess.CompletedProcess[str]:
        environ = {name: text for name, text in os.environ.items() if not name.startswith("JOBQD_")}
        return run_jobq(["stats", *arguments], tmp_path, {**environ, "JOBQD_REDIS_URL": url})

    return run


def test_within_its_limits_a_queue_is_fine(queue: Producer, stats: Run) -> None:
    queue.put("job", "mail")
    done = stats("--max-age", "5m", "--max-dead", "10", "--max-ready", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("JOBQ OK - job_queue: ready 1, oldest waits ")
    assert done.stdout.endswith(" dead=0;10 daemons=0\n")
    assert stats("--max-dead", "10", "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("option", "limit", "words"),
    [
        ("--max-age", "5m", "oldest waits 4d4h, more than 5m"),
        ("--max-ready", "0", "ready 1, more than 0"),
        ("--max-dead", "1", "dead 2, more than 1"),
        ("--min-daemons", "1", "daemons 0, fewer than 1"),
    ],
)
def test_a_limit_that_is_passed_is_named_and_exits_with_1(
    queue: Producer, stats: Run, option: str, limit: str, words: str
) -> None:
    queue.put("job", "mail", created_at=f"{time.time() - 360_000:.3f}")
    queue.redis.lpush("job_queue:dead", "a", "b")
    for more in ((), ("--quiet",)):
        done = stats(option, limit, *more)
        assert done.returncode == 1
        assert done.stdout.startswith(f"JOBQ WARNING - job_queue: {words} | ready=1")
        assert done.stdout.count("\n") == 1


def test_json_tells_the_limits_and_which_were_passed(queue: Producer, stats: Run) -> None:
    queue.put("job", "mail")
    done = stats("--max-ready", "0", "--max-age", "90s", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ready"] == 1
    assert document["passed"] == ["ready 1, more than 0"]
    assert document["limits"] == {"max_age": 90.0, "max_ready": 0, "max_dead": None, "min_daemons": None}
    assert 0 <= document["oldest_runnable"] == document["oldest"] < 60


def test_a_job_held_for_want_of_a_handler_is_too_old_too(queue: Producer, stats: Run) -> None:
    queue.redis.sadd("job_queue:held", "type:mial")
    queue.redis.zadd("job_queue:held:type:mial", {"job": 10 + (time.time() - 360_000) / 1e10})
    done = stats("--max-age", "5m")
    assert (done.returncode, "oldest waits 4d4h, more than 5m" in done.stdout) == (1, True)
    daemon = {"instance": "a", "types": '["mial"]', "concurrency": 1}
    queue.redis.hset("job_queue:daemon:w", mapping=daemon)
    queue.redis.zadd("job_queue:daemons", {"w": time.time() + 60})
    done = stats("--max-age", "5m", "--min-daemons", "1")
    assert (done.returncode, done.stdout[:9]) == (0, "JOBQ OK -")


def test_without_redis_it_exits_with_69(stats: Run, tmp_path: Path) -> None:
    done = stats("--max-age", "5m", url=f"unix://{tmp_path}/nobody")
    assert (done.returncode, done.stdout) == (69, "")
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-age", "soon"), "--max-age: 'soon' is not a duration"),
        (("--quiet",), "give a limit too"),
        (("--watch", "--max-dead", "1"), "looked at once"),
        (("--max-dead", "-1"), "--max-dead"),
    ],
)
def test_options_that_make_no_sense_are_refused(stats: Run, arguments: tuple[str, ...], words: str) -> None:
    done = stats(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_daemon_user_with_the_least_rights_may_look(queue: Producer, stats: Run, server: RedisServer) -> None:
    lines = (ROOT / "config/redis-acl.conf").read_text().splitlines()
    (line,) = [text for text in lines if text.startswith("user jobqd-reader")]
    words = [word for word in line.split()[1:] if not word.startswith("#")]
    queue.redis.execute_command("ACL", "SETUSER", *words, ">secret")
    queue.redis.sadd("job_queue:held", "type:mial")
    queue.redis.zadd("job_queue:held:type:mial", {"held": 10})
    for number in range(50):
        queue.put(f"job-{number}", "mail", score=number)
    done = stats("--max-age", "5m", url=server.url.replace("unix://", "unix://jobqd-reader:secret@"))
    assert (done.returncode, done.stderr) == (0, "")
