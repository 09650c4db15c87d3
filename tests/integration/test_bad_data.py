"""What a hostile or broken producer may write: it stops no daemon, harms no other job, and floods no log."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from jobqd.logs.sampler import SAMPLED
from tests.redis_server import RedisServer, binaries
from tests.support.daemon import Daemon
from tests.support.lab import Lab
from tests.support.servers import NEWEST_ONLY, newest_binary
from tests.support.waiting import eventually
from tests.support.workshop import Workshop, workshop

HANDLERS = """
from jobqd import Queue

@handlers.job("quick")
async def quick(): return 1

@handlers.job("take")
async def take(x: int = 0, data: object = None): return x

@handlers.job("anything")
async def anything(**fields: str): return len(fields)

@handlers.job("wait")
async def wait(job: Job):
    await ledger.gate(job.id)

@handlers.job("chatter")
async def chatter(job: Job, times: int):
    for count in range(times):
        await job.progress(99 * count / times)
    await job.progress(100)

@handlers.job("chatter_in_thread")
def chatter_in_thread(job: SyncJob, times: int):
    for count in range(times):
        job.progress(99 * count / times)
    job.progress(100)

@handlers.job("hydra")
async def hydra():
    if not ledger.is_open("hydra"):
        async with Queue.from_env() as queue:
            await queue.enqueue("hydra", priority=1)
"""
LINE = 1500
"""Bytes of the longest line that one job may cause."""
_numbers = itertools.count()


@pytest.fixture(scope="module", params=sorted(binaries()))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One daemon for the whole module: whatever was done to it before, it serves the next test."""
    with (
        RedisServer(binaries()[request.param]) as server,
        workshop(server, tmp_path_factory.mktemp("bad"), HANDLERS) as place,
    ):
        place.start(lease="2s")
        yield place


def daemon_of(place: Workshop) -> Daemon:
    return place.daemons[0]


@contextmanager
def unharmed(place: Workshop, jobs: int = 1, room: int = 3000) -> Iterator[None]:
    """What happens inside leaves the daemon alive, a neighbour completed, and a log that grew by little."""
    daemon, neighbour = daemon_of(place), f"neighbour-{next(_numbers)}"
    before = len(daemon.log)
    place.producer.put(neighbour, "quick")
    yield
    assert place.producer.wait(neighbour)["status"] == "completed"
    assert place.producer.run(f"{neighbour}-after", "quick")["status"] == "completed"
    assert not daemon.ended, daemon.log
    assert not daemon.of("daemon.crashed")
    assert len(daemon.log) - before < room + jobs * LINE, daemon.log


def put(place: Workshop, job_id: str | bytes, fields: Mapping[Any, Any], score: object = 10) -> None:
    """Enqueue with exactly these fields and this score."""
    redis = place.producer.redis
    name = job_id.encode() if isinstance(job_id, str) else job_id
    redis.execute_command("HSET", b"job:" + name, *itertools.chain.from_iterable(fields.items()))
    redis.execute_command("ZADD", "job_queue", score, name)


DEEP = '{"data":' + "[" * 100_000 + "]" * 100_000 + "}"
PAYLOADS: dict[str, tuple[str | bytes, str]] = {
    "pickle": (pickle.dumps({"x": 1}), "the payload is not valid UTF-8"),
    "deep": (DEEP, "the payload is not JSON: recursion limit exceeded"),
    "nan": ('{"x":NaN}', "NaN is not a finite number"),
    "hidden nan": ('{"data":[NaN]}', "the payload is not JSON"),
    "infinity": ('{"x":1e999}', "is not a finite number"),
    "surrogate": ('{"data":"\\ud800"}', "the payload is not JSON"),
    "raw surrogate": (b'{"data":"\xed\xa0\x80"}', "the payload is not valid UTF-8"),
    "huge number": ('{"data":' + "9" * 100_000 + "}", "the payload is not JSON: number out of range"),
    "a list": ("[1]", "is not a JSON object"),
    "null": ("null", "is not a JSON object"),
    "half": ('{"x":', "the payload is not JSON"),
    "twice": ('{"x":1}{"x":2}', "the payload is not JSON"),
    "unknown name": ('{"y":1}', 'argument "y" is not known'),
    "control character": ('{"data":"a\nb"}', "the payload is not JSON"),
}


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_a_payload_that_cannot_be_read_is_a_dead_letter_that_says_why(place: Workshop, name: str) -> None:
    payload, words = PAYLOADS[name]
    with unharmed(place):
        put(place, name, {"type": "take", "status": "queued", "payload": payload})
        job = place.producer.wait(name)
    assert (job["status"], job["error_type"], job["attempts"]) == ("failed", "ArgumentError", "1")
    assert words in job["error"]
    assert len(job["error"]) < 1000


def test_of_duplicate_keys_the_last_counts(place: Workshop) -> None:
    with unharmed(place):
        put(place, "dup", {"type": "take", "payload": '{"x":1,"x":2}'})
        assert place.producer.wait("dup")["result"] == "2"


LIMIT = 2**20
LARGE: dict[str, dict[str, str]] = {
    "payload": {"payload": json.dumps({"data": "x" * 10_000_000})},
    "own field": {"data": "x" * 10_000_000},
    "own name": {"x" * 10_000_000: "1"},
    "many fields": {f"field{number}": "x" * 100_000 for number in range(100)},
}


@pytest.mark.parametrize("name", list(LARGE))
def test_a_raw_job_beyond_max_payload_is_a_dead_letter_that_names_the_limit(place: Workshop, name: str) -> None:
    with unharmed(place):
        put(place, f"large {name}", {"type": "take", "status": "queued", **LARGE[name]})
        job = place.producer.wait(f"large {name}")
    assert (job["status"], job["error_type"], job["attempts"]) == ("failed", "ArgumentError", "1")
    assert "9.54MiB, more than max_payload (1MiB)" in job["error"]
    assert "store the data elsewhere" in job["error"]
    assert "raise max_payload" in job["error"]


def test_a_job_of_just_max_payload_runs_whatever_its_last_run_left_behind(place: Workshop) -> None:
    frame = '{"data":""}'
    fields = {
        "type": "take",
        "status": "queued",
        "x": "7",
        "payload": f'{frame[:-2]}{"x" * (LIMIT - 2 - len(frame))}"}}',
    }
    with unharmed(place):
        put(place, "just", fields)
        assert place.producer.wait("just")["status"] == "completed"
        put(place, "just more", {**fields, "x": "77"})
        assert "max_payload" in place.producer.wait("just more")["error"]
        # Our clients measure the payload alone.
        put(place, "just payload", {"type": "take", "payload": f'{frame[:-2]}{"x" * (LIMIT - len(frame))}"}}'})
        assert place.producer.wait("just payload")["status"] == "completed"
        left = {"checkpoint": '"' + "x" * (LIMIT - 2) + '"', "traceback": "x" * LIMIT, "result": "x" * LIMIT}
        put(place, "left", {**fields, **left})
        assert place.producer.wait("left")["status"] == "completed"


def test_a_claim_brings_about_eight_mebibytes_at_once(lab: Lab) -> None:
    for number in range(20):
        lab.put(f"{number:02}", x="x" * 10**6)
    counts = []
    while claims := lab.claim("w1", 20):
        counts.append(len(claims.jobs))
        if not claims.more:
            break
    assert counts == [9, 9, 2]


@pytest.mark.parametrize("many", ["v", "v" * 20])
def test_a_hash_of_a_hundred_thousand_fields(place: Workshop, many: str) -> None:
    with unharmed(place):
        for start in range(0, 100_000, 5000):
            fields = {f"f{number}": many for number in range(start, start + 5000)}
            place.producer.redis.hset(f"job:many{many}", mapping=fields)
        put(place, f"many{many}", {"type": "anything", "status": "queued"})
        job = place.producer.wait(f"many{many}")
    if len(many) > 1:
        assert "more than max_payload" in job["error"]
    else:
        assert job["status"] == "completed"


IDS = {
    "line break": b"a\nb\r\n", "pattern": b"{}*?[a]", "escape": b"\x1b[31m\x00", "not UTF-8": b"\xff\xfe",
    "spaces": b"  ", "long": b"x" * 100_000, "cancel": b"cancel 1", "quotes": b"'\"\\",
}  # fmt: skip


@pytest.mark.parametrize("name", list(IDS))
def test_any_bytes_but_none_are_an_id(place: Workshop, name: str) -> None:
    with unharmed(place):
        put(place, IDS[name], {"type": "quick", "status": "queued"})
        eventually(lambda: place.producer.redis.hget(b"job:" + IDS[name], "status") == "completed")


def test_the_empty_id_is_dropped(place: Workshop) -> None:
    # It could hold no lease: each script's first write takes the empty id out of the active set.
    with unharmed(place):
        put(place, "", {"type": "quick", "status": "queued"})
        daemon_of(place).wait_for("job.dropped", job_id="", reason="empty id")
    assert "worker" not in place.producer.job("")


@pytest.mark.parametrize("score", ["inf", "-inf", "1e308", "-1e308", "1e16", "-1e16", "1e-320", "-0.0"])
def test_any_score_runs(place: Workshop, score: str) -> None:
    with unharmed(place):
        put(place, f"score {score}", {"type": "quick", "status": "queued"}, score)
        job = place.producer.wait(f"score {score}")
    assert (job["status"], job["attempts"]) == ("completed", "1")
    assert job["priority"].lstrip("-").isdecimal()


def test_an_expired_hash_harms_nobody(place: Workshop) -> None:
    redis, daemon = place.producer.redis, daemon_of(place)
    with unharmed(place):
        redis.hset("job:no time", mapping={"type": "quick", "status": "queued"})
        redis.expire("job:no time", 0)
        redis.zadd("job_queue", {"no time": 1})
        redis.hset("job:little time", mapping={"type": "wait", "status": "queued"})
        redis.expire("job:little time", 1)
        redis.zadd("job_queue", {"little time": 1})
        daemon.wait_for("job.dropped", job_id="no time", reason="no hash")

        def gone() -> bool:
            place.ledger.open("little time")
            return not redis.exists("job:little time") or place.producer.status("little time") == "completed"

        # It vanishes, unless the slow walk came by in this second and took the TTL off.
        eventually(gone)
        eventually(lambda: redis.zscore("job_queue:active", "little time") is None)


FORGED: list[dict[str, str]] = [
    {"status": "completed"}, {"status": "processing", "worker": "x", "fence": "5"}, {"status": "nonsense"},
    {"fence": "999999999999999"}, {"fence": "-1"}, {"fence": "1e300"}, {"worker": "x" * 100_000},
    {"attempts": "999999999999999"}, {"attempts": "nan"}, {"crashes": "1"}, {"crashes": "-1"},
    {"interruptions": "999999999999999"}, {"_due_at": "nan"}, {"_due_at": "inf"}, {"_due_at": "x"}, {"_due_at": "1"},
    {"_history": "x" * 100_000}, {"_history": "\n" * 15_000}, {"_ended": "x:1"},
    {"held": "missing"}, {"held": "type:quick"}, {"held": "x" * 100_000}, {"held": ""},
    {"timeout": "1e308"}, {"timeout": "-1"}, {"timeout": "0"}, {"timeout": "nan"}, {"timeout": "x" * 4000},
    {"max_attempts": "0"}, {"max_attempts": "999999999999999"}, {"max_attempts": "x"},
    {"priority": "nan"}, {"priority": "1e400"}, {"created_at": "inf"}, {"created_at": "-1e300"}, {"created_at": "x"},
    {"checkpoint": "[" * 100_000}, {"finished_at": "x"}, {"started_at": "x"}, {"progress": "x"}, {"result": "x"},
]  # fmt: skip


def test_forged_fields_of_the_daemon_count_for_nothing_that_lasts(place: Workshop) -> None:
    with unharmed(place, jobs=len(FORGED)):
        for number, fields in enumerate(FORGED):
            put(place, f"forged {number}", {"type": "quick", "status": "queued", **fields})
        for number, fields in enumerate(FORGED):
            # A forged status is there before the job has run.
            eventually(lambda number=number: place.producer.redis.ttl(f"job:forged {number}") > 0)
            job = place.producer.wait(f"forged {number}", "completed")
            assert job.get("attempts") == fields.get("attempts", "1") or fields["attempts"] == "nan", fields


def test_what_claims_to_have_ended_long_ago_is_buried_or_dropped(place: Workshop) -> None:
    daemon = daemon_of(place)
    with unharmed(place, jobs=3):
        put(place, "ended", {"type": "quick", "status": "completed", "finished_at": "1"})
        daemon.wait_for("job.dropped", job_id="ended", reason="completed")
        put(place, "old", {"type": "quick", "status": "queued", "_due_at": "1.000000"})
        assert place.producer.wait("old")["error_type"] == "Expired"
        put(place, "again", {"type": "quick", "status": "queued", "finished_at": "1", "attempts": "9", "_due_at": "1"})
        assert place.producer.wait("again")["attempts"] == "1"


WRONG: dict[str, tuple[object, ...]] = {
    "string": ("SET", "x"), "list": ("RPUSH", "x"), "stream": ("XADD", "*", "a", "b"), "set": ("SADD", "x"),
    "sorted set": ("ZADD", "1", "x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WRONG))
@pytest.mark.parametrize("index", ["job_queue", "job_queue:scheduled", "job_queue:active"])
def test_another_type_in_place_of_a_job_is_dropped(place: Workshop, kind: str, index: str) -> None:
    redis, job_id = place.producer.redis, f"{kind} {index}"
    verb, *rest = WRONG[kind]
    with unharmed(place):
        redis.execute_command(verb, f"job:{job_id}", *rest)
        redis.zadd(index, {job_id: 1})
        eventually(lambda: redis.zscore(index, job_id) is None)
        if index != "job_queue:active":
            daemon_of(place).wait_for("job.dropped", job_id=job_id, reason="not a hash")
    assert redis.exists(f"job:{job_id}")  # whose ever it is, it is not ours to delete


@pytest.mark.parametrize(
    "job_type",
    ["x" * 10_000_000, "x" * 100_000, "x" * 513, "two words", "a\nb", "\x1b[1m"],
    ids=lambda text: repr(text[:10]),
)
def test_a_type_that_no_handler_can_have_is_a_dead_letter_that_says_why(place: Workshop, job_type: str) -> None:
    job_id = f"type {next(_numbers)}"
    with unharmed(place):
        put(place, job_id, {"type": job_type, "status": "queued"})
        job = place.producer.wait(job_id)
    assert job["error_type"] == "ArgumentError"
    assert "cannot be one: write 1 to 128 printable characters without spaces" in job["error"]
    assert not [reason for reason in place.producer.redis.smembers("job_queue:held") if job_type in reason]


def replace(place: Workshop, key: str) -> None:
    """Put a stream in place of a key, before the daemon can put its own there again."""
    pipe = place.producer.redis.pipeline(transaction=True)
    pipe.delete(key)
    pipe.xadd(key, {"a": "b"})
    pipe.execute()


@pytest.mark.parametrize("name", ["counters", "finished", "daemons"])
def test_another_type_in_a_place_for_people_costs_nothing(place: Workshop, name: str) -> None:
    redis = place.producer.redis
    with unharmed(place):
        replace(place, f"job_queue:{name}")
    redis.delete(f"job_queue:{name}")


@pytest.mark.parametrize("name", ["", ":active", ":scheduled", ":held", ":dead"])
def test_another_type_in_place_of_an_index_is_named_and_waited_for(place: Workshop, name: str) -> None:
    redis, daemon, key = place.producer.redis, daemon_of(place), f"job_queue{name}"
    before, job_id = len(daemon.log), f"waits{name}"
    eventually(lambda: not redis.zcard("job_queue:active"))
    replace(place, key)
    redis.hset(f"job:{job_id}", mapping={"type": "quick", "status": "queued"})
    if name:
        redis.zadd("job_queue", {job_id: 10})
    eventually(lambda: any(f"{key} is a stream, not a " in line["error"] for line in daemon.of("redis.away")))
    redis.delete(key)
    redis.zadd("job_queue", {job_id: 10})
    assert place.producer.wait(job_id)["status"] == "completed"
    eventually(lambda: len(daemon.of("redis.back")) == len(daemon.of("redis.away")), daemon.log)
    assert len(daemon.log) - before < 3000


@pytest.mark.parametrize("reason", ["type:nope", "missing"])
def test_another_type_in_place_of_a_held_set_is_named_and_stops_nobody(place: Workshop, reason: str) -> None:
    redis, daemon, key = place.producer.redis, daemon_of(place), f"job_queue:held:{reason}"
    replace(place, key)
    with unharmed(place, jobs=2):
        put(place, f"in {reason}", {"type": "nope", "status": "queued"}, 1)
        redis.zadd("job_queue", {f"no hash {reason}": 1})
        daemon.wait_for("index.foreign", key=key)
    assert len([line for line in daemon.of("index.foreign") if line["key"] == key]) == 1
    assert not [line for line in daemon.of("redis.away") if key in line["error"]]
    redis.delete(key)
    redis.zrem("job_queue:scheduled", f"in {reason}")
    redis.delete(f"job:in {reason}")


@pytest.mark.parametrize("job_type", ["chatter", "chatter_in_thread"])
def test_a_million_reports_of_progress(place: Workshop, job_type: str) -> None:
    told = place.producer.redis.pubsub(ignore_subscribe_messages=True)
    told.subscribe(f"job:progress:{job_type}")
    blocked = len(daemon_of(place).of("loop.blocked"))
    times = 1_000_000 if place.server.binary == newest_binary() else 50_000
    with unharmed(place, jobs=20):
        place.producer.put(job_type, job_type, score=1, times=times)
        place.producer.wait(job_type, "processing", "completed")
        for number in range(20):
            assert place.producer.run(f"beside {job_type} {number}", "quick")["status"] == "completed"
        job = place.producer.wait(job_type, timeout=60)
    assert (job["status"], job["progress"]) == ("completed", "100")
    messages = iter(lambda: told.get_message(timeout=0.1), None)
    took = float(job["finished_at"]) - float(job["started_at"])
    assert sum(1 for _ in messages) < 12 * took + 5
    assert len(daemon_of(place).of("loop.blocked")) == blocked
    told.close()


def test_a_job_that_enqueues_itself_without_end_bars_nobody(place: Workshop) -> None:
    daemon = daemon_of(place)
    place.producer.put("hydra", "hydra", score=1)
    for number in range(50):
        assert place.producer.run(f"beside hydra {number}", "quick")["status"] == "completed"
    place.ledger.open("hydra")
    redis = place.producer.redis
    eventually(lambda: not redis.zcard("job_queue") and not redis.zcard("job_queue:active"))
    assert not daemon.ended


def test_a_flood_of_bad_jobs_is_no_flood_of_lines(place: Workshop) -> None:
    redis, daemon, count = place.producer.redis, daemon_of(place), 5000
    lines_before = sum(record["event"] in SAMPLED for record in daemon.records)
    left_out_before = sum(line["count"] for line in daemon.of("job.lines_suppressed"))
    before, failed = len(daemon.log), int(redis.hget("job_queue:counters", "failed") or 0)
    pipe = redis.pipeline(transaction=False)
    for number in range(count):
        pipe.hset(f"job:flood {number}", mapping={"type": "take", "payload": "x" * 1000})
        pipe.zadd("job_queue", {f"flood {number}": 1})
    pipe.execute()
    with unharmed(place, jobs=2000):
        eventually(lambda: int(redis.hget("job_queue:counters", "failed") or 0) == failed + count, timeout=30)

        def told() -> int:
            lines = sum(record["event"] in SAMPLED for record in daemon.records) - lines_before
            left_out = sum(line["count"] for line in daemon.of("job.lines_suppressed")) - left_out_before
            return lines + left_out

        eventually(lambda: told() >= count)
    assert sum(record["event"] in SAMPLED for record in daemon.records) - lines_before < count / 2
    assert len(daemon.log) - before < count * 300
    assert "not JSON" in place.producer.job("flood 7")["error"]  # what was not told is in Redis


@NEWEST_ONLY
def test_a_handed_out_job_that_is_too_large_comes_without_its_large_fields(lab: Lab) -> None:
    from jobqd.keys import Seat  # noqa: PLC0415
    from jobqd.store import running  # noqa: PLC0415

    lab.put("X", payload="x" * 2000, max_attempts=7)

    def claim() -> running.Claims:
        seat, sizes = Seat(lab.keys, "w1", 15.0), running.Sizes(1000, -1)
        return lab.run(running.claim(seat, 1, 5, 1e9, {"mail": -1}, sizes=sizes))

    look: Callable[[Any], Any] = lambda claims: [(job.id, job.fields, job.unfit) for job in claims.jobs]  # noqa: E731
    [(job_id, fields, unfit)] = look(claim())
    assert job_id == "X"
    assert "payload" not in fields
    assert fields["max_attempts"] == "7"
    assert "more than max_payload (1000B)" in unfit
    # The reply was lost and the claim is sent again: the same, short too.
    [(_, again, unfit_again)] = look(claim())
    assert "payload" not in again
    assert unfit_again == unfit
