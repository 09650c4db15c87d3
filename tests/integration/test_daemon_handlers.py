"""What becomes of a job: the daemon as a process, jobs enqueued by two plain Redis commands."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.ledger import Ledger
from tests.support.producer import Producer
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import workshop

HANDLERS = """
@handlers.job("typed")
async def typed(source: str, user_id: int, loud: bool = False, width: int = 1280) -> dict:
    return {"source": source, "user_id": user_id, "loud": loud, "width": width}

@handlers.job("order")
async def order(job: Job):
    ledger.note("order", job.id)

@handlers.job("film", concurrency=2)
async def film(job: Job):
    ledger.note("film", job.id)
    await ledger.gate("films")

@handlers.job("mail")
async def mail(): pass

@handlers.job("flaky", retry_delay="20ms")
async def flaky(job: Job, good: int = 3):
    ledger.note("flaky", job.id, job.attempt, job.max_attempts, job.fence)
    if job.attempt < good:
        raise OSError(f"attempt {job.attempt} failed")
    return "ok"

@handlers.job("asks")
async def asks(job: Job):
    if job.attempt == 1:
        raise Retry("the API is busy", delay="30ms")

@handlers.job("gives_up")
async def gives_up():
    raise Fail("no such film")

@handlers.job("gives_up_with")
async def gives_up_with(verb: str):
    error = ValueError("an exception, not a text")
    raise Fail(error) if verb == "fail" else Retry(error)

@handlers.job("snoozes")
async def snoozes(job: Job):
    ledger.note("snoozes", job.fence, job.attempt)
    if job.fence == 1:
        raise Snooze("1s")

@handlers.job("deep", max_attempts=2, retry_delay="10ms")
async def deep(depth: int):
    def down(left):
        if left == 0:
            raise RuntimeError("the bottom " + "x" * 10_000)
        exec("down(left - 1)", {"down": down, "left": left})
    down(depth)

@handlers.on_dead
async def tell(dead):
    ledger.note("dead", dead.id, dead.type, dead.attempts, dead.error_type)
    if dead.type == "bad_hook":
        raise RuntimeError("the hook itself failed")
    if dead.type == "cancelled_hook":
        raise asyncio.CancelledError

@handlers.on_dead
async def tell_too(dead):
    ledger.note("dead too", dead.id)

@handlers.job("cancelled_hook", max_attempts=1)
async def cancelled_hook():
    raise ValueError("x")

@handlers.job("bad_hook", max_attempts=1)
async def bad_hook():
    raise ValueError("x")

@handlers.around
async def outer(job):
    if job.type == "nested":
        ledger.note("nested outer in")
    if job.type == "around_fails":
        raise ConnectionError("no database")
    try:
        yield
    finally:
        if job.type == "nested":
            ledger.note("nested outer out")

@handlers.around
async def inner(job):
    if job.type == "nested":
        ledger.note("nested inner in")
    yield
    if job.type == "nested":
        ledger.note("nested inner out")
    if job.type == "around_end_fails":
        raise OSError("commit failed")

@handlers.job("nested")
async def nested():
    ledger.note("nested handler")

@handlers.job("around_fails", max_attempts=1)
async def around_fails():
    ledger.note("around_fails ran")

@handlers.job("around_end_fails", max_attempts=1)
async def around_end_fails(): pass

@handlers.lifespan
async def lifespan():
    yield {"database": "open"}

@handlers.job("state")
async def state(job: Job):
    return job.state

@handlers.job("thread_fails", max_attempts=1)
def thread_fails():
    raise OSError("no film")

@handlers.job("state_in_thread")
def state_in_thread(job: SyncJob):
    return job.state

@handlers.job("slow", timeout="150ms", max_attempts=1)
async def slow():
    try:
        await asyncio.Event().wait()
    finally:
        ledger.note("slow cleaned up")

@handlers.job("stuck_thread", timeout="100ms", max_attempts=2, retry_delay="0s")
def stuck_thread(job: SyncJob):
    ledger.note("stuck", job.id, job.attempt)
    ledger.gate_in_thread(f"stuck-{job.id}")
    ledger.note("stuck told to stop:", job.stopping.is_set())
    job.progress(50)

@handlers.job("stalls", stall_timeout="200ms", max_attempts=1)
async def stalls(job: Job):
    for percent in range(1, 9):
        await asyncio.sleep(0.05)
        await job.progress(percent)
    await asyncio.Event().wait()

@handlers.job("returns")
async def returns(what: str):
    return {
        "object": object(), "nan": float("nan"), "surrogate": "\\ud800", "large": "x" * 3000,
    }[what]

@handlers.job("raises", max_attempts=1)
async def raises(what: str):
    raise {
        "SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(), "GeneratorExit": GeneratorExit(),
        "CancelledError": asyncio.CancelledError(), "StopIteration": StopIteration(1),
        "StopAsyncIteration": StopAsyncIteration(), "surrogates": ValueError("byte \\udcff and half \\ud800 a pair"),
        "nul": ValueError("a\\x00b"), "group": ExceptionGroup("several", [ValueError("one"), OSError("two")]),
    }[what]

@handlers.job("raises_in_thread", max_attempts=1)
def raises_in_thread(what: str):
    raise {
        "SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError(), "StopIteration": StopIteration(1),
    }[what]

class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")

@handlers.job("unprintable", max_attempts=1)
async def unprintable():
    raise Unprintable

from typing import Annotated
from pydantic import AfterValidator

def broken_check(value: int) -> int:
    return value // 0

@handlers.job("broken_check", max_attempts=1)
async def broken_check_handler(n: Annotated[int, AfterValidator(broken_check)]): pass

@handlers.job("stubborn", timeout="100ms", max_attempts=1)
async def stubborn():
    try:
        await ledger.gate("never")
    except asyncio.CancelledError:
        ledger.note("stubborn was asked")
    await ledger.gate("stubborn")
    return "done all the same"

@handlers.job("steps")
async def steps(job: Job):
    await job.progress(5, "half \\ud800 a pair")
    await job.save_checkpoint({"text": "half \\ud800 a pair"})
    return "ok"
"""


class Shop:
    """One daemon for all tests of this module; each uses ids of its own."""

    def __init__(self, producer: Producer, daemon: Daemon, ledger: Ledger) -> None:
        self.producer, self.daemon, self.ledger = producer, daemon, ledger
        self.run, self.put, self.wait, self.job = producer.run, producer.put, producer.wait, producer.job


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with newest_server() as server, workshop(server, tmp_path_factory.mktemp("shop"), HANDLERS) as place:
        daemon = place.start(concurrency=8, max_result="2kB", retry_delay="10ms")
        yield Shop(place.producer, daemon, place.ledger)
        assert daemon.stop() == 0, daemon.log


def test_two_commands_are_enough_and_the_hash_becomes_typed_arguments(shop: Shop) -> None:
    job = shop.run("typed", "typed", source="in.mp4", user_id=7, loud="true", colour="red")
    assert json.loads(job["result"]) == {"source": "in.mp4", "user_id": 7, "loud": True, "width": 1280}
    assert job["status"] == "completed"
    assert job["attempts"] == "1"
    assert job["colour"] == "red"
    assert float(job["finished_at"]) >= float(job["started_at"])
    assert 0 < shop.producer.redis.ttl("job:typed") <= 24 * 3600
    assert shop.producer.redis.zcard("job_queue:active") == 0


def test_the_payload_object_wins_over_fields_of_the_same_name(shop: Shop) -> None:
    payload = json.dumps({"source": "payload.mp4", "width": 640})
    job = shop.run("payload", "typed", payload=payload, source="field.mp4", user_id=7)
    assert json.loads(job["result"])["source"] == "payload.mp4"
    assert json.loads(job["result"])["width"] == 640


def test_a_capped_type_runs_so_many_at_once_and_nothing_waits_behind_it(shop: Shop) -> None:
    films = [shop.put(f"film{n}", "film", score=1) for n in range(4)]
    eventually(lambda: len(shop.ledger.lines("film ")) == 2, "two films started")
    for n in range(20):
        shop.put(f"mail{n}", "mail", score=100)
    for n in range(20):
        shop.wait(f"mail{n}", "completed")
    assert len(shop.ledger.lines("film ")) == 2
    waiting = [shop.job(film) for film in films if shop.job(film)["status"] == "queued"]
    assert [job["held"] for job in waiting] == ["type:film"] * 2
    shop.ledger.open("films")
    for film in films:
        assert shop.wait(film)["status"] == "completed"
    assert len(shop.ledger.lines("film ")) == 4


def test_a_failure_is_tried_again_and_its_success_clears_the_error(shop: Shop) -> None:
    job = shop.run("flaky", "flaky")
    assert job["status"] == "completed"
    assert job["attempts"] == "3"
    assert "error" not in job
    assert shop.ledger.lines("flaky flaky ") == [f"flaky flaky {n} 10 {n}" for n in (1, 2, 3)]


def test_the_traceback_of_a_thread_begins_with_the_handler(shop: Shop) -> None:
    lines = shop.run("thread", "thread_fails")["traceback"].splitlines()
    assert [line for line in lines if line.startswith("  File")] == [lines[1]]
    assert "handlers.py" in lines[1]
    assert lines[-1] == "OSError: no film"


def test_after_its_last_attempt_a_job_is_dead_with_all_that_explains_it(shop: Shop) -> None:
    job = shop.run("dead", "flaky", good=99, max_attempts=2, note="kept")
    assert job["status"] == "failed"
    assert (job["error"], job["error_type"], job["attempts"]) == ("attempt 2 failed", "OSError", "2")
    assert job["traceback"].startswith("Traceback")
    assert "handlers.py" in job["traceback"]
    assert "executor.py" not in job["traceback"]
    assert job["note"] == "kept"
    history = [json.loads(line) for line in job["_history"].splitlines()]
    assert [entry["error"] for entry in history] == ["attempt 1 failed", "attempt 2 failed"]
    assert [entry["attempt"] for entry in history] == [1, 2]
    assert shop.producer.redis.lrange("job_queue:dead", 0, -1).count("dead") == 1
    assert 29 * 86400 < shop.producer.redis.ttl("job:dead") <= 30 * 86400
    shop.daemon.wait_for("job.retrying", job_id="dead", attempt=1)
    shop.daemon.wait_for("job.dead", job_id="dead", level="error", error="attempt 2 failed")


def test_the_dead_letter_hook_is_called_once_and_may_fail(shop: Shop) -> None:
    shop.run("hooked", "flaky", good=99, max_attempts=2)
    shop.ledger.wait_for("dead hooked flaky 2 OSError")
    shop.run("bad-hook", "bad_hook")
    shop.daemon.wait_for("hook.failed", job_id="bad-hook", hook="tell")
    shop.run("cancelled-hook", "cancelled_hook")
    shop.daemon.wait_for("hook.failed", job_id="cancelled-hook", hook="tell")
    shop.ledger.wait_for("dead too cancelled-hook")
    assert shop.run("after-bad-hook", "mail")["status"] == "completed"
    assert shop.ledger.lines("dead hooked") == ["dead hooked flaky 2 OSError"]


def test_retry_names_its_delay(shop: Shop) -> None:
    job = shop.run("asks", "asks")
    assert (job["status"], job["attempts"]) == ("completed", "2")
    record = shop.daemon.wait_for("job.retrying", job_id="asks")
    assert (record["delay"], record["error"]) == (0.03, "the API is busy")


def test_fail_goes_straight_to_the_dead_letters(shop: Shop) -> None:
    job = shop.run("gives-up", "gives_up")
    assert (job["status"], job["attempts"], job["error"]) == ("failed", "1", "no such film")
    assert job["error_type"] == "Fail"


@pytest.mark.parametrize("verb", ["fail", "retry"])
def test_a_verb_that_carries_an_exception_tells_its_text(shop: Shop, verb: str) -> None:
    job = shop.run(f"carries-{verb}", "gives_up_with", verb=verb, max_attempts=1)
    assert (job["status"], job["error"]) == ("failed", "an exception, not a text")


def test_snooze_is_not_an_attempt(shop: Shop) -> None:
    shop.put("snoozes", "snoozes")
    waiting = shop.wait("snoozes", "scheduled")
    assert "attempts" not in waiting
    job = shop.wait("snoozes")
    assert (job["status"], job["attempts"]) == ("completed", "1")
    assert shop.ledger.lines("snoozes") == ["snoozes 1 1", "snoozes 2 1"]


def test_what_is_kept_of_an_error_is_bounded(shop: Shop) -> None:
    job = shop.run("deep", "deep", depth=150)
    assert job["status"] == "failed"
    assert len(job["error"]) <= 4000
    assert len(job["traceback"]) <= 8100
    assert "characters left out" in job["traceback"]
    assert len(job["_history"]) < 2000


def test_arounds_nest_in_order_of_registration(shop: Shop) -> None:
    shop.run("nested", "nested")
    assert shop.ledger.lines("nested") == [
        "nested outer in", "nested inner in", "nested handler", "nested inner out", "nested outer out",
    ]  # fmt: skip


def test_an_error_in_an_around_is_a_failure_of_the_run(shop: Shop) -> None:
    before = shop.run("around", "around_fails")
    assert (before["status"], before["error"], before["error_type"]) == ("failed", "no database", "ConnectionError")
    assert shop.ledger.lines("around_fails") == []
    after = shop.run("around-end", "around_end_fails")
    assert (after["status"], after["error"]) == ("failed", "commit failed")
    assert "result" not in after


@pytest.mark.parametrize("kind", ["state", "state_in_thread"])
def test_what_the_lifespan_yields_is_the_state_of_each_job(shop: Shop, kind: str) -> None:
    assert json.loads(shop.run(kind, kind)["result"]) == {"database": "open"}


def test_a_timeout_ends_the_handler_and_lets_it_clean_up(shop: Shop) -> None:
    job = shop.run("slow", "slow")
    assert (job["status"], job["error"], job["error_type"]) == ("failed", "timed out after 150ms", "Timeout")
    assert shop.ledger.lines("slow") == ["slow cleaned up"]


def test_the_hash_may_set_a_timeout(shop: Shop) -> None:
    job = shop.run("short", "slow", timeout="0.05")
    assert job["error"] == "timed out after 50ms"


def test_a_thread_past_its_timeout_keeps_its_worker_and_is_not_tried_again_until_it_returns(shop: Shop) -> None:
    shop.put("thread", "stuck_thread")
    shop.ledger.wait_for("stuck thread 1")
    shop.run("meanwhile", "slow")  # it lasts longer than the thread's timeout
    assert shop.job("thread")["status"] == "processing"
    assert shop.producer.redis.zscore("job_queue:active", "thread") is not None
    assert shop.ledger.lines("stuck thread") == ["stuck thread 1"]
    shop.ledger.open("stuck-thread")
    job = shop.wait("thread")
    # In the first run `progress` raised Stopped, which is how a thread learns of its timeout.
    assert (job["status"], job["attempts"]) == ("completed", "2")
    assert json.loads(job["_history"])["error_type"] == "Timeout"
    assert shop.ledger.lines("stuck told") == ["stuck told to stop: True", "stuck told to stop: False"]


def test_a_run_without_progress_for_stall_timeout_is_ended(shop: Shop) -> None:
    job = shop.run("stalls", "stalls")
    assert job["error"] == "no progress for 200ms (stall_timeout)"
    assert job["error_type"] == "Stalled"
    # The reports before held it off for longer than stall_timeout.
    assert float(job["finished_at"]) - float(job["started_at"]) > 0.5
    assert job["progress"] == "8"


@pytest.mark.parametrize(
    ("what", "says"),
    [("object", "object"), ("nan", "NaN"), ("surrogate", "surrogate"), ("large", "max_result")],
)
def test_a_result_that_cannot_be_kept_fails_for_good_and_says_why(shop: Shop, what: str, says: str) -> None:
    job = shop.run(f"returns-{what}", "returns", what=what)
    assert (job["status"], job["error_type"], job["attempts"]) == ("failed", "ResultError", "1")
    assert says.lower() in job["error"].lower()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source": "a"}, '"user_id" is missing'),
        ({"source": "a", "user_id": "seven"}, '"user_id": "seven"'),
        ({"payload": '{"source": "a", "user_id": 7, "colour": 1}'}, '"colour"'),
        ({"payload": "[1]"}, "not a JSON object"),
    ],
)
def test_arguments_that_do_not_fit_are_dead_lettered_by_name(shop: Shop, fields: dict[str, str], says: str) -> None:
    job = shop.run(f"unfit-{abs(hash(says))}", "typed", **fields)
    assert (job["status"], job["error_type"], job["attempts"]) == ("failed", "ArgumentError", "1")
    assert says in job["error"]


def test_a_job_without_a_type_says_so(shop: Shop) -> None:
    job = shop.run("untyped", "")
    assert (job["status"], job["error"]) == ("failed", "the job has no type: set the field `type`")


@pytest.mark.parametrize(
    ("what", "error_type"),
    [
        ("SystemExit", "SystemExit"), ("KeyboardInterrupt", "KeyboardInterrupt"), ("GeneratorExit", "GeneratorExit"),
        ("CancelledError", "CancelledError"), ("StopIteration", "RuntimeError"),
        ("StopAsyncIteration", "StopAsyncIteration"), ("nul", "ValueError"), ("group", "ExceptionGroup"),
    ],
)  # fmt: skip
def test_whatever_a_handler_raises_is_its_failure_alone(shop: Shop, what: str, error_type: str) -> None:
    job = shop.run(f"raises-{what}", "raises", what=what)
    assert (job["status"], job["error_type"]) == ("failed", error_type)
    assert shop.run(f"after-{what}", "mail")["status"] == "completed"


@pytest.mark.parametrize("what", ["SystemExit", "KeyboardInterrupt", "CancelledError", "StopIteration"])
def test_whatever_a_handler_in_a_thread_raises_is_its_failure_alone(shop: Shop, what: str) -> None:
    job = shop.run(f"thread-raises-{what}", "raises_in_thread", what=what)
    assert job["status"] == "failed"
    assert job["error_type"] == {"StopIteration": "RuntimeError"}.get(what, what)


def test_an_error_text_that_is_no_text_costs_nobody_anything(shop: Shop) -> None:
    job = shop.run("surrogates", "raises", what="surrogates")
    assert job["status"] == "failed"
    assert job["error"].startswith("byte ")
    assert shop.run("unprintable", "unprintable")["error"] == "(its message could not be made)"
    steps = shop.run("steps", "steps", max_attempts=1)
    assert (steps["status"], steps["progress"]) == ("completed", "5"), steps.get("error")
    assert shop.run("after-surrogates", "mail")["status"] == "completed"


def test_a_check_of_the_application_that_breaks_is_a_failure_of_the_run(shop: Shop) -> None:
    job = shop.run("broken-check", "broken_check", n=1)
    assert (job["status"], job["error_type"]) == ("failed", "ZeroDivisionError")


def test_a_handler_that_swallows_its_cancellation_keeps_its_worker_and_may_complete(shop: Shop) -> None:
    shop.put("stubborn", "stubborn")
    shop.ledger.wait_for("stubborn was asked")
    assert shop.job("stubborn")["status"] == "processing"
    shop.ledger.open("stubborn")
    job = shop.wait("stubborn")
    assert (job["status"], job["result"]) == ("completed", '"done all the same"')
