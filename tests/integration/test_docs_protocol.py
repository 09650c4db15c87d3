"""The documents on real servers: every redis-cli example is run, every client example runs against a real daemon."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobqd.client.ids import Ids
from jobqd.keys import Keys
from jobqd.store import producing
from jobqd.store.producing import NewJob
from tests.redis_server import VERSIONS, RedisServer, binaries
from tests.support.daemon import ROOT, Application, Daemon
from tests.support.documents import Block, Document
from tests.support.lab import Lab, lapse_orders
from tests.support.producer import producer
from tests.support.servers import newest_server

PROTOCOL, HANDLERS, CLIENTS = Document("docs/protocol.md"), Document("docs/handlers.md"), Document("docs/clients.md")
FIRST_MAIL = HANDLERS.blocks("python")[0]


@pytest.fixture(params=VERSIONS, ids=[f"redis-{version}" for version in VERSIONS])
def server(request) -> Iterator[RedisServer]:
    """A server of this test alone: the examples use the default names, and make users."""
    binary = binaries().get(request.param)
    if binary is None:
        pytest.skip(f"no redis-server {request.param} on this machine")
    with RedisServer(binary) as made:
        yield made


# -------------------------------------------------------------------------------------------------------- redis-cli


def shell(server: RedisServer, script: str) -> str:
    """Run lines of a shell in which redis-cli talks to this server as it does to a person."""
    beside = server.binary.parent / "redis-cli"
    program = str(beside) if beside.exists() else shutil.which("redis-cli")
    if program is None:
        pytest.skip("no redis-cli on this machine")
    define = f'redis-cli() {{ {shlex.quote(program)} -s {shlex.quote(str(server.socket))} --no-raw "$@"; }}\n'
    command = ["bash", "-euo", "pipefail", "-c", define + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def session(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the document shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def test_every_redis_cli_example_answers_as_the_protocol_shows(server):
    ran = 0
    for block in PROTOCOL.blocks("console"):
        for command, output in session(block):
            assert shell(server, command) == output, f"{block}: {command}"
            ran += 1
    assert ran >= 10
    assert PROTOCOL.text.count("$ redis-cli") == ran


def test_the_fair_fraction_in_the_shell_gives_first_in_first_out(server):
    (block,) = PROTOCOL.blocks("sh")
    for _ in range(5):
        shell(server, block.text)
    client = redis.Redis(unix_socket_path=str(server.socket), decode_responses=True)
    entries = client.zrange("job_queue", 0, -1, withscores=True)
    created = [float(client.hget(f"job:{job_id}", "created_at")) for job_id, _ in entries]
    client.close()
    assert len(entries) == 5
    assert created == sorted(created)
    for (_, score), moment in zip(entries, created, strict=True):
        assert abs((score - 10) * 1e10 - moment) < 0.01


def test_the_raw_commands_of_the_readme_enqueue_a_job(server):
    commands = re.findall(r"^    (redis-cli (?:HSET|ZADD) .*)$", Document("README.md").text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        shell(server, command)
    made = Lab(server.url, Keys())
    assert [job.type for job in made.claim(types={"video_render": -1}).jobs] == ["video_render"]
    made.close()


def test_no_other_document_shows_redis_cli_untested():
    for document in (HANDLERS, CLIENTS):
        assert "redis-cli" not in document.text


# ------------------------------------------------------------------------------------------------ what scripts write


def documented(head: str, nth: int = 0) -> set[str]:
    return {name for cell in PROTOCOL.column(head, nth) for name in re.findall(r"`([^`]+)`", cell)}


class Traces:
    """Every key with its type, every field of a job and every counter that was ever there, looked at step by step."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.types: dict[str, str] = {}
        self.fields: set[str] = set()
        self.expiring: dict[str, bool] = {}

    def look(self) -> None:
        raw = self._lab.raw
        for key in raw.scan_iter("*"):
            kind, name = raw.type(key), self._pattern(key)
            assert self.types.setdefault(name, kind) == kind
            self.expiring[name] = raw.ttl(key) >= 0
            if name == "job:ID":
                self.fields |= set(raw.hkeys(key))

    @staticmethod
    def _pattern(key: str) -> str:
        for start, name in (("job:", "ID"), ("job_queue:held:", "REASON"), ("job_queue:claim:", "WORKER"),
                            ("job_queue:daemon:", "WORKER")):  # fmt: skip
            if key.startswith(start):
                return start + name
        return key


@pytest.fixture
def lab(server) -> Iterator[Lab]:
    made = Lab(server.url, Keys())
    yield made
    made.close()


def live_through_everything(lab: Lab, look: Traces) -> None:
    """Every script in every way in which it writes."""
    lab.raw.set("jobqd:queue", "job_queue", nx=True)
    lab.put("A", max_attempts=3, timeout=60, priority=10, payload="{}", created_at=1)
    lab.put("H", "film")
    lab.zadd("nobody")
    claimed = lab.claim_one()
    lab.beat("w1", ("A", 1))
    lab.progress("w1", "A", 1)
    lab.checkpoint("w1", "A", 1)
    look.look()
    lab.end(claimed, "retrying")
    look.look()
    lab.make_due("A")
    lab.promote()
    lab.end(lab.claim_one(), "ready")
    look.look()
    lab.end(lab.claim_one(), "scheduled")
    lab.make_due("A")
    lab.promote()
    lab.claim_one()
    lab.lapse("A")
    lab.settle(*lapse_orders(lab.lapsed()))
    lab.end(claimed)
    look.look()
    lab.end(lab.claim_one(), "ready", charge="crashes")
    lab.end(lab.claim_one(), "dead", traceback="…")
    look.look()
    lab.dead_retry("A")
    lab.end(lab.claim_one())
    lab.zadd("A")
    lab.claim()
    lab.leased("V")
    lab.raw.delete("job:V")
    lab.lapse("V")
    lab.lapsed()
    lab.enqueue(NewJob("D", 10, {"type": "mail"}, delay=60))
    lab.cancel("D")
    lab.walk(repair=True)
    look.look()


def test_scripts_write_the_keys_fields_and_counters_of_the_protocol_and_no_others(lab):
    traces = Traces(lab)
    live_through_everything(lab, traces)
    assert set(traces.types) == documented("key")
    assert traces.fields == documented("field")
    assert set(lab.raw.hkeys("job_queue:counters")) == documented("counter")
    rows = [row.split("|") for row in PROTOCOL.text.splitlines() if row.startswith(("| `job", "| `jobqd"))]
    for row in rows:
        name = row[1].strip().strip("`")
        if name in traces.types and len(row) == 7:
            kind = {"zset": "sorted set"}.get(traces.types[name], traces.types[name])
            assert row[2].strip() == kind, name
            if name != "job:ID":
                assert traces.expiring[name] == (row[5].strip() != "none"), name


def test_the_books_balance_as_the_protocol_says(lab):
    live_through_everything(lab, Traces(lab))
    counters = {name: int(value) for name, value in lab.raw.hgetall("job_queue:counters").items()}
    jobs = [lab.raw.hgetall(key) for key in lab.raw.scan_iter("job:*")]
    alive = [job for job in jobs if "_due_at" in job and job["status"] not in ("completed", "failed", "cancelled")]
    ended = counters["completed"] + counters["failed"] + counters["cancelled"]
    # V's hash was deleted while it was active: the one thing that the law excepts.
    assert counters["entered"] == ended + len(alive) + 1


# -------------------------------------------------------------------------- what is promised for the two commands


def test_a_job_of_the_two_commands_may_be_moved_while_it_is_ready(lab):
    lab.put("A", score=10)
    lab.put("B", score=11)
    lab.raw.zadd("job_queue", {"B": 9}, xx=True)
    assert lab.claim_ids(want=1) == ["B"]
    assert lab.field("B", "priority") == "9"


def test_a_plain_score_goes_ahead_of_its_fractions_and_plain_equals_by_their_bytes(lab):
    for job_id, score in (("first", 10.1763900000123), ("second", 10.1763900000124), ("b", 10), ("a", 10), ("B", 10)):
        lab.put(job_id, score=score)
    lab.put("ahead", score="9.99")
    assert lab.claim_ids() == ["ahead", "B", "a", "b", "first", "second"]


def test_a_negative_priority_is_the_floor_of_its_score(lab):
    lab.put("A", score=-5 + 0.1763900000123)
    lab.put("B", score=-5)
    assert lab.claim_ids() == ["B", "A"]
    assert lab.field("A", "priority") == lab.field("B", "priority") == "-5"


@pytest.mark.parametrize("created_at", ["1", "1763900000123", "9e99", "nan", "yesterday", ""])
def test_created_at_is_information_only(lab, created_at):
    lab.put("A", created_at=created_at)
    claimed = lab.claim_one(max_age=60)
    assert lab.end(claimed) == "ok"
    assert lab.job("A")["created_at"] == created_at
    assert abs(float(lab.job("A")["_due_at"]) - lab.now()) < 5


def test_own_fields_are_never_changed(lab):
    own = {"source": "in.mp4", "user_id": "7", "data": "\x00ü", "empty": "", "Status": "mine", "held:x": "mine"}
    lab.put("A", **own)
    lab.put("H", "film", **own)
    for end in ("retrying", "ready", "scheduled", "dead", "completed"):
        claimed = lab.claim_one()
        assert own.items() <= claimed.fields.items()
        lab.checkpoint("w1", "A", claimed.fence)
        lab.progress("w1", "A", claimed.fence)
        assert lab.end(claimed, end) == "ok"
        if end in ("retrying", "scheduled"):
            lab.make_due("A")
            lab.promote()
        if end == "dead":
            lab.dead_retry("A")
    lab.walk(repair=True)
    lab.cancel("H")
    for job_id in ("A", "H"):
        assert own.items() <= lab.job(job_id).items()
    lab.hset("A")
    lab.zadd("A")
    assert own.items() <= lab.claim_one().fields.items()


def test_sending_both_again_adds_no_run_before_the_end_and_one_after_it(lab):
    claimed = lab.leased("A")
    lab.put("A")
    assert lab.claim_ids() == []
    assert lab.end(claimed) == "ok"
    assert lab.claim_ids() == []
    lab.put("A")
    assert [(job.id, job.fence) for job in lab.claim().jobs] == [("A", 2)]
    assert lab.raw.ttl("job:A") == -1


def test_fence_begins_again_after_del(lab):
    lab.end(lab.leased("A"))
    lab.raw.delete("job:A")
    assert lab.leased("A").fence == 1


def test_a_delayed_job_of_two_commands_becomes_ready_at_its_priority_with_the_fraction(lab):
    lab.hset("A", status="scheduled", priority=10)
    lab.raw.zadd("job_queue:scheduled", {"A": lab.now() + 60})
    assert lab.promote().moved == 0
    lab.make_due("A")
    assert lab.promote().moved == 1
    score = lab.raw.zscore("job_queue", "A")
    assert abs((score - 10) * 1e10 - lab.now()) < 5
    assert lab.claim_ids() == ["A"]


# ------------------------------------------------------------------------------------------------- users and memory


def test_the_users_that_the_protocol_names_are_those_of_the_file():
    users = re.findall(r"^user (\S+) ", Document("config/redis-acl.conf").text, re.MULTILINE)
    assert sorted(set(re.findall(r"`(jobqd-[a-z]+)`", PROTOCOL.text))) == sorted(users)


def test_the_users_of_the_protocol_are_enough_for_a_daemon_and_for_a_producer(server, tmp_path):
    (rules,) = re.findall(r"^user jobqd-daemon (.*)$", Document("config/redis-acl.conf").text, re.MULTILINE)
    words = [">secret" if word.startswith("#") else word for word in rules.split()]
    redis.Redis(unix_socket_path=str(server.socket)).execute_command("ACL", "SETUSER", "jobqd-daemon", *words)
    for block in PROTOCOL.blocks("console"):
        for command, _ in session(block):
            if " ACL SETUSER " in command:
                shell(server, command)
    made = Application(tmp_path, FIRST_MAIL.text)
    allowed = redis.Redis(
        unix_socket_path=str(server.socket), username="producer", password="secret", decode_responses=True
    )
    with Daemon(made, server.url, redis_username="jobqd-daemon", redis_password="secret") as daemon:
        listening = allowed.pubsub()
        listening.subscribe("job:progress:1")
        assert listening.get_message(timeout=5)["type"] == "subscribe"
        allowed.hset("job:1", mapping={"status": "queued", "type": "send_mail", "to": "ann@example.com"})
        allowed.zadd("job_queue", {"1": 10})
        texts = [listening.get_message(timeout=10)["data"] for _ in range(2)]
        assert texts == ['{"status":"processing"}', '{"status":"completed"}']
        assert allowed.hget("job:1", "result") == '{"sent":true}'
        daemon.stop()
        assert not daemon.of("redis.away")
        assert not daemon.of("wakeup.polling")
        assert "NOPERM" not in daemon.log
    with pytest.raises(redis.exceptions.NoPermissionError):
        allowed.zrange("job_queue:active", 0, -1)
    listening.close()
    allowed.close()


def test_a_queued_job_takes_the_memory_that_the_protocol_states(lab, server):
    version = re.search(r"^\d+\.\d+", lab.raw.info("server")["redis_version"]).group()
    said = re.search(r"\*\*about (\d+) bytes\*\*: (\d+) for the hash and (\d+) in the sorted set on Redis 6.2.14, "
                     r"(\d+) and (\d+) on Redis 7.0.15", " ".join(PROTOCOL.text.split()))  # fmt: skip
    total, *numbers = map(int, said.groups())
    hash_bytes, entry_bytes = numbers[:2] if version == "6.2" else numbers[2:]
    ids, fields = Ids(), {"type": "video_render", "payload": '{"source":"in.mp4","user_id":7}'}
    jobs = [NewJob(ids.next(), 10, fields) for _ in range(20_000)]
    before = lab.raw.info("memory")["used_memory"]
    for start in range(0, len(jobs), 500):
        lab.run(producing.enqueue(lab.keys, jobs[start : start + 500], max_ready=10**6))
    used = (lab.raw.info("memory")["used_memory"] - before) / len(jobs)
    # Hash tables grow by doubling, so the share of each job swings with their number.
    assert used == pytest.approx(total, rel=0.15)
    assert lab.raw.memory_usage(lab.keys.job(jobs[0].id)) == pytest.approx(hash_bytes, rel=0.1)
    assert lab.raw.memory_usage(lab.keys.ready, samples=0) / len(jobs) == pytest.approx(entry_bytes, rel=0.15)


# ------------------------------------------------------------------------------------ examples in Python, with a daem


_FILMS = """
@handlers.job("video_render")
async def render(job: Job, source: str) -> str:
    await job.progress(67, step="encoding", eta_seconds=12)
    return source
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A daemon with the handlers that the clients' examples want; gives the environment for clients."""
    with newest_server() as server:
        made = Application(tmp_path_factory.mktemp("clients"), FIRST_MAIL.text + _FILMS)
        with Daemon(made, server.url):
            kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQD_")}
            yield {**kept, "JOBQD_REDIS_URL": server.url, "PYTHONPATH": str(ROOT / "daemon")}


@pytest.mark.parametrize("block", CLIENTS.blocks("python"), ids=str)
def test_every_example_of_the_clients_guide_runs(block, running, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text], env=running, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


RUNS = {
    "send_mail": ({"to": "ann@example.com"}, '{"sent":true}'),
    "report": (
        {"customer": {"id": 7, "name": "Ann"}, "since": "2026-01-31", "format": "csv"}, '"Ann since 2026-01-31 as csv"'
    ),
    "charge": ({"order": 7}, '"order 7 charged in attempt 1 of 8"'),
    "import_rows": ({"rows": 300}, "300"),
    "checksum": ({"source": "/dev/null"}, '"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"'),
    "count_lines": ({"source": "/dev/null"}, "0"),
    "fingerprint": (
        {"text": "film", "rounds": 3}, '"f82661410e1b64fe4ec678d7d3cb1f2a286c1f6ef915d2810750ae953e7504b9"'
    ),
    "thumbnail": ({"source": "in.png"}, '"in.png.jpg"'),
    "greet": ({"name": "Ann"}, '"Hello, Ann"'),
    "resize": ({"source": "in.png"}, '"in.png@1280"'),
}  # fmt: skip
"""For each type of the handlers' guide: a payload, and the result that the job then has."""


def _modules(directory: Path) -> list[str]:
    """Write each example that has handlers as a module; returns the setting `handlers`."""
    specs = []
    for number, block in enumerate(HANDLERS.blocks("python")):
        if "handlers = Handlers()" in block.text:
            # Types are unique in a daemon: what the guide shows twice would not start.
            (directory / f"example{number}.py").write_text(block.text)
            specs.append(f"example{number}:handlers")
    return specs


def test_the_handlers_of_the_guide_do_in_a_daemon_what_it_says(tmp_path):
    specs = _modules(tmp_path)
    with newest_server() as server, producer(server, Keys()) as made:
        for job_type, (payload, _) in RUNS.items():
            made.put(job_type, job_type, payload=json.dumps(payload))
        made.put("failed", "charge", order=8, state="unknown")
        made.put("retried", "charge", order=8, state="locked")
        made.put("snoozed", "charge", order=8, state="not yet")
        made.put("misfit", "send_mail", payload='{"recipient":"ann@example.com"}')
        with Daemon(Application(tmp_path, ""), server.url, handlers=",".join(specs)) as daemon:
            results = {job_type: made.wait(job_type).get("result") for job_type in RUNS}
            assert results == {job_type: result for job_type, (_, result) in RUNS.items()}
            assert made.wait("failed", "failed")["error"] == "there is no order 8"
            assert made.wait("retried", "retrying")["error_type"] == "Retry"
            assert "attempts" not in made.wait("snoozed", "scheduled")
            misfit = made.wait("misfit", "failed")
            assert (misfit["error_type"], misfit["attempts"]) == ("ArgumentError", "1")
            types = daemon.of("daemon.ready")[0]["types"]
        assert set(types.split(",")) == set(RUNS)


_DECISIONS = """
@handlers.around
async def careless(job: Job):
    try:
        yield
    except ValueError:
        pass

@handlers.job(max_attempts=1)
async def swallowed():
    raise ValueError("nobody hears of it")

@handlers.job(timeout="200ms")
async def late():
    try:
        await ledger.gate("never")
    except asyncio.CancelledError:
        return "late, but done"

@handlers.job
async def misshapen():
    return float("nan")

@handlers.job(max_attempts=1)
async def exits():
    sys.exit(3)
"""


def test_what_the_guide_decided_is_so(tmp_path):
    with (
        newest_server() as server,
        producer(server, Keys()) as made,
        Daemon(Application(tmp_path, _DECISIONS), server.url),
    ):
        swallowed, late = made.run("1", "swallowed"), made.run("2", "late")
        assert (swallowed["status"], swallowed["error"]) == ("failed", "nobody hears of it")
        assert (late["status"], late["result"]) == ("completed", '"late, but done"')
        misshapen, exits = made.run("3", "misshapen"), made.run("4", "exits")
        assert (misshapen["status"], misshapen["error_type"], misshapen["attempts"]) == ("failed", "ResultError", "1")
        assert (exits["status"], exits["error_type"]) == ("failed", "SystemExit")
        assert made.run("5", "late")["status"] == "completed"
