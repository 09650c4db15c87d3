"""The command line `jobq`, run as people run it: a process, real servers, exit statuses, what it prints."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from jobqd.keys import Seat
from jobqd.retry import Settlement
from jobqd.store import running
from tests.redis_server import RedisServer, binaries
from tests.support.forked import run_jobq

PACKAGES = Path(__file__).parents[2] / "daemon"
COMMAND = [sys.executable, "-m", "jobqd.cli.jobq"]


@pytest.fixture(scope="module")
def redis_server():
    """One server is enough here: what differs between versions is tested below the command line, and faster."""
    found = binaries()
    if not found:
        pytest.skip("no redis-server on this machine")
    with RedisServer(found[max(found)]) as server:
        yield server


class Jobq:
    """Runs `jobq` in a directory whose jobqd.toml names the server."""

    def __init__(self, directory: Path, url: str, prefix: str) -> None:
        self.directory = directory
        (directory / "jobqd.toml").write_text(f'redis_url = "{url}"\nkey_prefix = "{prefix}"\n')
        outside = {name: text for name, text in os.environ.items() if not name.startswith("JOBQD_")}
        self.environment = {**outside, "PYTHONPATH": str(PACKAGES), "TZ": "UTC"}

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run_jobq(arguments, self.directory, self.environment, stdin=stdin)

    def json(self, *arguments: str):
        done = self(*arguments, "--json")
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *arguments: str, columns: int = 80) -> tuple[int, str]:
        """Run it on a terminal of this width; return the exit status and everything it drew."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {**self.environment, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.directory, env=environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        drawn = b""
        try:
            while chunk := os.read(master, 65536):
                drawn += chunk
        except OSError:  # Linux says EIO at a terminal's end
            pass
        os.close(master)
        return process.wait(timeout=30), drawn.decode()


@pytest.fixture
def jobq(redis_server, keys, tmp_path) -> Jobq:
    return Jobq(tmp_path, redis_server.url, keys.prefix)


async def claim(link, seat: Seat, *types: str) -> running.Claimed:
    call = running.claim(seat, time.monotonic_ns() // 1000, 1, 1e9, dict.fromkeys(types, -1))
    return (await link.run(call)).jobs[0]


async def settle(link, seat: Seat, job: running.Claimed, to: str, **facts) -> None:
    order = Settlement(job.id, seat.worker, job.fence, to, "attempts", ttl=100, **facts)
    assert await link.run(running.settle(seat.keys, [order], dead_max=100, trimmed_ttl=100)) == ["ok"]


@pytest.fixture
def seat(keys) -> Seat:
    return Seat(keys, "w1", 60.0)


async def beat(link, seat: Seat, *types: str) -> None:
    about = {"instance": "a", "host": "web1", "pid": 7, "concurrency": 4, "running": 1, "types": json.dumps(types)}
    await link.run(running.beat(seat, about, []))


async def test_enqueue_prints_the_id_alone_on_stdout(jobq, keys, raw):
    done = jobq("enqueue", "mail", "to=a@b.c", "user_id=007", "n:=7", "--priority", "-5", "--max-attempts", "2")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    job_id = done.stdout.strip()
    assert json.loads(await raw.hget(keys.job(job_id), "payload")) == {"to": "a@b.c", "user_id": "007", "n": 7}
    assert -5 < await raw.zscore(keys.ready, job_id) < -4
    assert await raw.hget(keys.job(job_id), "max_attempts") == "2"


async def test_a_payload_comes_from_standard_input(jobq, keys, raw):
    done = jobq("enqueue", "mail", "--payload", "-", "--id", "m-1", stdin='{"a": [1]}')
    assert done.stdout == "m-1\n"
    assert await raw.hget(keys.job("m-1"), "payload") == '{"a":[1]}'


def test_an_existing_id_is_told(jobq):
    first = jobq.json("enqueue", "mail", "--id", "m-1", "--delay", "1h")
    again = jobq("enqueue", "mail", "--id", "m-1")
    assert first == {"id": "m-1", "created": True, "existing_status": None}
    assert (again.returncode, again.stdout) == (0, "m-1\n")
    assert "exists already (scheduled)" in again.stderr


async def test_a_type_that_nobody_handles_is_warned_of(jobq, link, seat):
    assert "no daemon is running" in jobq("enqueue", "mail").stderr
    await beat(link, seat, "send_mail", "film")
    assert "did you mean send_mail?" in jobq("enqueue", "send_mial").stderr
    assert jobq("enqueue", "send_mail").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("enqueue", "mail", "oops"), 2, "'oops' is not key=value"),
        (("enqueue", "mail", "--payload", "[1]"), 2, "is not a JSON object"),
        (("enqueue", "mail", "--delay", "soon"), 2, "delay: 'soon'"),
        (("enqueue", "mail", "--at", "noon"), 2, "at: 'noon'"),
        (("enqueue", "mail", "--delay", "1s", "--at", "12:00"), 2, "only one of them"),
        (("enqueue",), 2, "TYPE"),
        (("list", "--status", "done"), 2, "done is none of queued"),
        (("dead", "retry"), 2, "--all"),
        (("nonsense",), 2, "nonsense"),
        (("show", "nope"), 1, "there is no job 'nope'"),
        (("cancel", "nope"), 1, ""),
        (("--config", "nope.toml", "stats"), 78, "nope.toml"),
        (("--redis-url", "unix:///nowhere/redis.sock", "stats"), 69, "redis_url is set by command line"),
        (("--redis-url", "redis://:secret@localhost", "stats"), 78, "command line"),
        (("--redis-url", "http://localhost", "stats"), 78, "redis_url"),
    ],
)
def test_what_goes_wrong_is_told_shortly(jobq, arguments, status, words):
    done = jobq(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) <= 12


def test_an_unreachable_redis_is_told_in_two_lines(jobq):
    done = jobq("--redis-url", "unix:///nowhere/redis.sock", "list")
    assert done.stderr.startswith("jobq: Redis at /nowhere/redis.sock does not answer")
    assert len(done.stderr.splitlines()) == 2


async def test_show_tells_everything(jobq, link, seat):
    jobq("enqueue", "mail", "to=a", "--id", "m-1")
    job = await claim(link, seat, "mail")
    await settle(link, seat, job, "dead", error="no such address", error_type="Fail", traceback="line 1\nline 2")
    page = jobq("show", "m-1")
    assert page.returncode == 0
    for words in (
        "m-1",
        "mail",
        "failed",
        "attempts    1",
        '"to": "a"',
        "Fail: no such address",
        "line 2",
        "forgotten",
    ):
        assert words in page.stdout
    document = jobq.json("show", "m-1")
    assert document["status"] == "failed"
    assert (document["error"], document["attempts"], document["payload"]) == ("no such address", 1, {"to": "a"})


async def test_a_hash_without_an_index_is_told(jobq, keys, raw):
    await raw.hset(keys.job("lost"), mapping={"status": "queued", "type": "mail"})
    assert "in no index" in jobq("show", "lost").stdout


async def test_lists(jobq, link, seat):
    for name in ("a", "b", "c"):
        jobq("enqueue", "film" if name == "c" else "mail", "--id", name)
    await claim(link, seat, "mail")
    table = jobq("list")
    assert [row.split()[:3] for row in table.stdout.splitlines()] == [
        ["ID", "STATUS", "TYPE"], ["a", "processing", "mail"], ["b", "queued", "mail"], ["c", "queued", "film"],
    ]  # fmt: skip
    assert [job["id"] for job in jobq.json("list", "--status", "queued")["jobs"]] == ["b", "c"]
    assert [job["id"] for job in jobq.json("list", "--type", "film")["jobs"]] == ["c"]
    assert jobq.json("list", "--limit", "1")["more"] is True
    nothing = jobq("list", "--status", "failed")
    assert (nothing.returncode, nothing.stdout) == (0, "")


async def test_stats(jobq, link, seat):
    assert "no daemon is running" in jobq("stats").stdout
    jobq("enqueue", "mail")
    await beat(link, seat, "mail")
    page = jobq("stats").stdout
    assert ["ready", "1"] in [row.split()[:2] for row in page.splitlines()]
    assert "web1" in page
    document = jobq.json("stats")
    assert (document["ready"], document["daemons"][0]["types"]) == (1, ["mail"])


def test_cancel_answers_for_each(jobq):
    jobq("enqueue", "mail", "--id", "a")
    assert jobq.json("cancel", "a", "b") == {"a": "removed", "b": "gone"}
    again = jobq("cancel", "a")
    assert (again.returncode, again.stdout) == (0, "a  was cancelled before\n")


async def test_dead_letters(jobq, link, seat, keys, raw):
    for name in ("a", "b", "c"):
        jobq("enqueue", "mail", "--id", name)
        await settle(link, seat, await claim(link, seat, "mail"), "dead", error="broken")
    assert [job["id"] for job in jobq.json("dead", "list")["jobs"]] == ["c", "b", "a"]
    done = jobq("dead", "retry", "a", "nope")
    assert (done.returncode, done.stdout) == (1, "a     back in the queue\nnope  not found\n")
    assert jobq("dead", "retry", "--all").stdout == "2 retried\n"
    assert await raw.zcard(keys.ready) == 3
    assert await raw.exists(keys.dead) == 0


async def listened(raw, keys, *ids: str) -> None:
    channels = [keys.progress(job_id) for job_id in ids]
    async with asyncio.timeout(20):
        while 0 in dict(await raw.pubsub_numsub(*channels)).values():
            await asyncio.sleep(0.01)


async def publish_progress(link, seat: Seat, job: running.Claimed, percent: int) -> None:
    message = json.dumps({"progress": percent, "step": "encoding", "eta_seconds": 5})
    update = running.ProgressUpdate(job.id, job.fence, str(percent), "encoding", "5", message)
    await link.run(running.progress(seat, [update]))


async def test_watch_follows_to_the_end(jobq, link, seat, raw, keys):
    jobq("enqueue", "mail", "--id", "a")
    jobq("enqueue", "mail", "--id", "b")
    process = jobq.start("watch", "a", "b", "--json")
    await listened(raw, keys, "a", "b")
    job = await claim(link, seat, "mail")
    await publish_progress(link, seat, job, 40)
    await settle(link, seat, job, "completed", result='{"url": "x"}')
    await settle(link, seat, await claim(link, seat, "mail"), "dead", error="broken")
    output, errors = await asyncio.to_thread(process.communicate, timeout=20)
    lines = [json.loads(line) for line in output.splitlines()]
    assert (process.returncode, errors) == (1, "")
    assert next(line["status"] for line in lines if line["id"] == "a") == "queued"
    assert 40.0 in [line["progress"] for line in lines if line["id"] == "a"]
    assert {line["id"]: line["status"] for line in lines} == {"a": "completed", "b": "failed"}
    assert [line["result"] for line in lines if "result" in line and line["id"] == "a"] == [{"url": "x"}]


async def test_watch_draws_bars_on_a_terminal(jobq, link, seat, raw, keys):
    jobq("enqueue", "mail", "--id", "a")
    drawing = asyncio.create_task(asyncio.to_thread(jobq.on_terminal, "watch", "a"))
    await listened(raw, keys, "a")
    job = await claim(link, seat, "mail")
    await publish_progress(link, seat, job, 40)
    await settle(link, seat, job, "completed", result="1")
    status, drawn = await drawing
    assert status == 0
    assert "100%" in drawn
    assert "completed" in drawn
    assert "━" in drawn


async def test_enqueue_and_watch_in_one(jobq, link, seat, raw, keys):
    process = jobq.start("enqueue", "mail", "--id", "a", "--watch")
    await listened(raw, keys, "a")
    await settle(link, seat, await claim(link, seat, "mail"), "completed", result="1")
    output, _ = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0
    assert output.splitlines()[0] == "a"
    assert "completed" in output.splitlines()[-1]


def test_watching_what_is_not_there_ends_with_1(jobq):
    done = jobq("watch", "nope")
    assert (done.returncode, done.stdout) == (1, "nope  not found\n")


async def test_nothing_that_a_producer_wrote_steers_the_terminal(jobq, keys, raw):
    evil = "\x1b[2J\x1b]0;owned\x07\r\n\u202eb"
    fields = {
        "status": evil,
        "type": evil,
        "error": evil,
        "payload": evil,
        "traceback": evil,
        "_history": evil,
        evil: evil,
    }
    await raw.hset(keys.job("evil" + evil), mapping=fields)
    await raw.zadd(keys.ready, {"evil" + evil: 1})
    for arguments in (("list",), ("show", "evil" + evil), ("stats",), ("list", "--json")):
        _, drawn = jobq.on_terminal(*arguments)
        for code in ("\x1b[2J", "\x1b]", "\x07", "\u202e"):
            assert code not in drawn


def test_a_pipe_gets_whole_lines_without_colour_and_a_terminal_gets_both(jobq):
    jobq("enqueue", "mail" * 30, "--id", "x" * 60)
    piped = jobq("list").stdout
    assert "mail" * 30 in piped
    assert "\x1b" not in piped
    _, drawn = jobq.on_terminal("list")
    assert "\x1b[36mqueued" in drawn


def test_help_and_version(jobq):
    assert jobq("--version").stdout == "jobq 0.1.0\n"
    for arguments in ((), ("enqueue",), ("dead",), ("dead", "retry")):
        page = jobq(*arguments, "--help")
        assert page.returncode == 0
        assert "Usage: jobq" in page.stdout


def test_a_reader_that_goes_away_is_no_traceback(jobq):
    for number in range(3):
        jobq("enqueue", "mail", "--id", f"a{number}")
    process = jobq.start("list")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=20)


async def test_a_watch_tells_why_a_job_waits(jobq, link, seat, raw, keys):
    jobq("enqueue", "mail", "--id", "a")
    process = jobq.start("watch", "a")
    await listened(raw, keys, "a")
    job = await claim(link, seat, "mail")
    await settle(link, seat, job, "retrying", error="no such address", error_type="ValueError", delay=60.0)
    retrying = await asyncio.to_thread(lambda: next(line for line in process.stdout if "retrying" in line))
    process.kill()
    process.communicate()
    assert retrying.startswith("a  retrying  due in ")
    assert retrying.endswith(", attempt 1 failed, no such address\n")


async def test_a_held_job_is_told_from_one_that_nobody_handles(jobq, link, seat):
    jobq("enqueue", "film", "--id", "a")
    await link.run(running.claim(seat, 1, 1, 1e9, {}))
    await beat(link, seat, "mail")
    assert "no running daemon handles film" in jobq("list").stdout
    assert "no running daemon handles film" in jobq("show", "a").stdout
    await beat(link, seat, "film")
    assert "waits for a daemon with room for film" in jobq("list").stdout
    assert "held  since" in jobq("show", "a").stdout


def test_an_embedded_redis_that_does_not_run_is_told(jobq):
    (jobq.directory / "jobqd.toml").write_text('redis_url = "embedded://./var"\n')
    done = jobq("stats")
    assert done.returncode == 69
    assert "the embedded Redis of" in done.stderr
    assert "start jobqd run" in done.stderr
    assert len(done.stderr.splitlines()) == 2


async def test_stats_lists_the_reasons_that_hold_the_most(jobq, keys, raw):
    for number in range(1000):
        await raw.sadd(keys.held, f"type:t{number}")
        await raw.zadd(f"{keys.held}:type:t{number}", dict.fromkeys(map(str, range(3 if number % 100 == 7 else 1)), 1))
    rows = [row.split() for row in jobq("stats").stdout.splitlines() if row.startswith("held")]
    assert len(rows) == 21
    assert {tuple(row[1:]) for row in rows[:10]} == {("3", f"type:t{number}") for number in range(7, 1000, 100)}
    assert rows[20] == ["held", "980", "+980", "more;", "--json", "names", "all"]
    assert len(jobq.json("stats")["held"]) == 1000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("enqueue", "mail", "--priority", "x"), "priority: 'x' is not an integer"),
        (("list", "--limit", "1.5"), "--limit: '1.5' is not an integer"),
        (("dead", "list", "--limit", "0"), "--limit: 0 is less than 1"),
        (("list", "--limit", "10001"), "--limit: 10001 is more than 10000"),
        (("stats", "--max-ready", "many"), "--max-ready: 'many' is not an integer"),
    ],
)
def test_a_number_that_is_none_is_shown(jobq, arguments, told):
    done = jobq(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"jobq: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--json", "stats"), "--json: write it after the command, as in jobq stats --json"),
        (("--limit", "3", "list"), "--limit: write it after the command, as in jobq list --limit"),
        (
            ("enqueue", "--redis-url", "redis://x", "mail"),
            "--redis-url: write it before the command, as in jobq --redis-url … enqueue",
        ),
        (("dead", "list", "-i", "web"), "-i: write it before the command, as in jobq -i … dead"),
    ],
)
def test_an_option_on_the_wrong_side_of_the_command_is_told_its_place(jobq, arguments, told):
    done = jobq(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"jobq: {told}\n")


def test_an_option_that_there_is_nowhere_is_refused_as_before(jobq):
    for arguments in (("--jsn", "stats"), ("stats", "--jsn")):
        done = jobq(*arguments)
        assert done.returncode == 2
        assert "No such option: --jsn" in done.stderr
