"""The clients' checks and decisions that need no Redis."""

from __future__ import annotations

import threading
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.cli.enqueue import advice, moment_of, payload_of
from jobqd.cli.text import Paper, block, line
from jobqd.client.ids import Ids
from jobqd.client.procedure import Pause
from jobqd.client.producing import Patience, batches
from jobqd.client.spec import JobSpec, Limits, new_job, unix_time
from jobqd.errors import JobFailed, PayloadError, StoreError, StoreFault
from jobqd.store.counting import DaemonInfo
from jobqd.store.facts import JobInfo, decoded, number, progress_of
from jobqd.store.producing import NewJob

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=1)))


def built(*args, **options) -> NewJob:
    return new_job(JobSpec(*args, **options), "made-id", Limits(max_payload=1000))


def test_ids_are_uuid7_and_grow_even_when_the_clock_stands_or_goes_back():
    times = iter([5_000_000_000] * 3000 + [4_000_000_000] * 3000)
    ids = Ids(clock=lambda: next(times))
    made = [ids.next() for _ in range(6000)]
    assert made == sorted(set(made))
    assert {uuid.UUID(text).version for text in made} == {7}
    assert {uuid.UUID(text).variant for text in made} == {uuid.RFC_4122}


def test_ids_carry_the_time_in_milliseconds():
    made = uuid.UUID(Ids(clock=lambda: 1_763_900_000_123_456_789).next())
    assert made.int >> 80 == 1_763_900_000_123


def test_ids_of_many_threads_differ():
    ids, made = Ids(), []
    threads = [threading.Thread(target=lambda: made.extend(ids.next() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_a_job_is_built_from_type_payload_and_options():
    job = built("mail", {"to": "ü"}, priority=-3, delay="5m", max_attempts=2, timeout="90s")
    assert job == NewJob(
        "made-id", -3, {"type": "mail", "payload": '{"to":"ü"}', "max_attempts": 2, "timeout": "90"}, delay=300.0
    )


def test_a_job_is_built_from_the_arguments_of_a_handler():
    job = built(SimpleNamespace(type="mail", payload={"n": 1}), id=uuid.UUID(int=7))
    assert (job.id, job.fields) == (str(uuid.UUID(int=7)), {"type": "mail", "payload": '{"n":1}'})


def test_no_delay_is_now_and_no_payload_is_no_field():
    job = built("mail", delay=0)
    assert job.delay is None
    assert job.fields == {"type": "mail"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": ""}, "type: ''"),
        ({"type": "x" * 129}, "use 1 to 128 printable characters"),
        ({"type": "a\nb"}, "printable"),
        ({"type": "a b"}, "no spaces"),
        ({"type": "\ud800"}, "printable"),
        ({"type": 7}, "is not a job type"),
        ({"payload": [1]}, "not a mapping"),
        ({"payload": {1: 2}}, "the key 1 is not a text"),
        ({"payload": {"a": [1, {"b": float("nan")}]}}, "payload['a'][1]['b']: nan"),
        ({"payload": {"a": {"when": NOON}}}, "payload['a']['when']"),
        ({"payload": {"how": print}}, "is a builtin_function_or_method, which JSON cannot hold"),
        ({"payload": {"how": object()}}, "is an object, which JSON cannot hold: pass a text or a number"),
        ({"payload": {"a": "\udc80"}}, "payload['a']"),
        ({"payload": {"a": "x" * 1000}}, "max_payload (1000B)"),
        ({"priority": 1.5}, "priority: 1.5 is not an integer"),
        ({"priority": True}, "priority: True is not an integer"),
        ({"priority": 10**9 + 1}, "is outside -1000000000 to 1000000000"),
        ({"delay": -1}, "delay: -1"),
        ({"delay": "soon"}, "delay: 'soon'"),
        ({"delay": 1, "at": 1}, "only one of them"),
        ({"at": datetime(2026, 1, 1)}, "no time zone"),
        ({"at": "tomorrow"}, "at: 'tomorrow' is not a time"),
        ({"at": 1763900000123.0}, "milliseconds"),
        ({"at": float("inf")}, "at: inf"),
        ({"id": ""}, "id: '' is empty: give at least one character"),
        ({"id": 42}, 'id: 42 is not a text: write "42"'),
        ({"id": b"42"}, "id: b'42' is not a text"),
        ({"id": "x" * 257}, "257 characters; 256"),
        ({"id": "a\x1b[2J"}, "control character"),
        ({"max_attempts": 0}, "max_attempts: 0 is outside"),
        ({"timeout": 0}, "timeout: 0"),
    ],
)
def test_what_cannot_be_enqueued_is_named(options, words):
    options = {"type": "mail", **options}
    with pytest.raises(PayloadError) as caught:
        built(**options)
    assert words in str(caught.value)


def test_a_payload_that_holds_itself_is_refused():
    loop: dict = {}
    loop["again"] = loop
    with pytest.raises(PayloadError, match="nested too deep"):
        built("mail", loop)


def test_times_are_told_in_every_form():
    assert unix_time(NOON) == unix_time("2026-01-31T12:00:00+01:00") == unix_time(NOON.timestamp())


def call_of(patience: Patience, faults: list[StoreFault | None]):
    """Let a call meet these faults; return the pauses it made, and what came of it."""
    procedure, pauses = patience.call("the call"), []  # type: ignore[arg-type]
    step = next(procedure)
    try:
        for fault in faults:
            assert step == "the call"
            step = procedure.send("done") if fault is None else procedure.throw(StoreError(fault, "no"))
            assert isinstance(step, Pause)
            pauses.append(step.seconds)
            step = procedure.send(None)
    except StopIteration as end:
        return pauses, end.value
    except StoreError as error:
        return pauses, error.fault
    raise AssertionError("it goes on for ever")


def test_a_call_is_sent_again_in_growing_pauses():
    patience = Patience(10, clock=lambda: 0.0, random=lambda: 1.0)
    pauses, reply = call_of(patience, [StoreFault.DOWN, StoreFault.BUSY, StoreFault.READONLY, None])
    assert (pauses, reply) == ([0.05, 0.1, 0.2], "done")


def test_a_call_gives_up_when_its_time_is_over():
    now = iter(range(100))
    patience = Patience(3, clock=lambda: next(now), random=lambda: 0.0)
    pauses, fault = call_of(patience, [StoreFault.DOWN] * 50)
    assert fault is StoreFault.DOWN
    assert len(pauses) == 2


@pytest.mark.parametrize("fault", [StoreFault.FULL, StoreFault.DISK, StoreFault.DENIED, StoreFault.WRONGTYPE])
def test_what_waiting_does_not_cure_is_not_sent_again(fault):
    assert call_of(Patience(10, clock=lambda: 0.0), [fault]) == ([], fault)


def test_batches_are_bounded_in_jobs_and_bytes():
    small = [NewJob(str(number), 0) for number in range(1100)]
    assert [len(batch) for batch in batches(small)] == [500, 500, 100]
    large = [NewJob(str(number), 0, {"payload": "x" * 2**20}) for number in range(9)]
    assert [len(batch) for batch in batches(large)] == [4, 4, 1]
    assert [len(batch) for batch in batches([NewJob("1", 0, {"payload": "x" * 2**23})] * 2)] == [1, 1]


@given(st.dictionaries(st.text(), st.text()))
def test_no_hash_breaks_a_job(fields):
    job = JobInfo("id", 0.0, fields)
    names = ("priority", "attempts", "created_at", "progress", "payload", "result", "history", "own_fields")
    assert [getattr(job, name) for name in names]


@pytest.mark.parametrize("text", ["nan", "inf", "", "x", None, [], "1e999"])
def test_what_is_not_a_finite_number_is_none(text):
    assert number(text) is None


def test_progress_is_bounded_and_texts_are_checked():
    told = progress_of("processing", {"progress": "250", "step": 7, "eta_seconds": "-1"})
    assert (told.percent, told.step, told.eta_seconds) == (100.0, None, None)


def test_json_that_is_none_stays_text():
    assert decoded("[" * 100_000) == "[" * 100_000
    assert decoded("{bad") == "{bad"


def test_words_become_a_payload():
    words = ["user_id=007", "tags=[1]", "flag:=true", "n:=7", "url=http://x/?a=b", "odd={x"]
    assert payload_of(words, '{"a": 1}') == {
        "a": 1, "user_id": "007", "tags": [1], "flag": True, "n": 7, "url": "http://x/?a=b", "odd": "{x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text", "complaint"),
    [
        (["novalue"], None, "'novalue' is not key=value"),
        (["=x"], None, "is not key=value"),
        (["a:=x"], None, "a:= 'x' is not JSON"),
        (["a=1", "a=2"], None, "given twice"),
        (["a=1"], '{"a": 2}', "given twice"),
        ([], "[1]", "is not a JSON object"),
    ],
)
def test_words_that_are_no_payload_are_named(words, text, complaint):
    with pytest.raises(PayloadError) as caught:
        payload_of(words, text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:30", NOON + timedelta(minutes=30)),
        ("11:00", NOON + timedelta(hours=23)),
        ("2026-02-01 08:00", datetime(2026, 2, 1, 7, tzinfo=UTC)),
        ("2026-02-01T08:00:00Z", datetime(2026, 2, 1, 8, tzinfo=UTC)),
        ("1769900000", datetime.fromtimestamp(1769900000, UTC)),
    ],
)
def test_a_person_may_write_a_time_in_many_ways(text, expected):
    assert moment_of(text, NOON) == expected.timestamp()


@pytest.mark.parametrize("text", ["25:00", "noon", "1769900000000"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(PayloadError, match="at: "):
        moment_of(text, NOON)


def daemon(*types: str) -> DaemonInfo:
    return DaemonInfo("w", "default", "host", 1, "0", None, 1, 0, types, "running")


def test_advice_on_types():
    assert "no daemon is running" in str(advice("mail", []))
    assert advice("mail", [daemon("film"), daemon("mail")]) is None
    assert advice("mail", [daemon()]) is None
    assert "did you mean send_mail?" in str(advice("send_mial", [daemon("send_mail", "film")]))


@given(st.text())
def test_nothing_that_is_shown_steers_a_terminal(text):
    shown = line(text)
    assert not any(unicodedata.category(character) == "Cc" for character in shown)
    assert not set(shown) & {"\x1b", "\n", "\r", "\x9b", "\u202e", "\u2028", "\t"}
    shown.encode()


def test_a_block_keeps_its_lines():
    assert block("a\n\tb\x1b[0m") == "a\n\tb\\x1b[0m"


def test_a_table_is_cut_on_a_terminal_and_whole_on_a_pipe():
    row = ("1", "x" * 100)
    narrow = Paper(40, False).table(("ID", "TEXT"), [row])
    assert max(map(len, narrow.splitlines())) == 40
    assert "x" * 100 in Paper(None, False).table(("ID", "TEXT"), [row])
    assert "\x1b" not in narrow


def test_one_attempt_is_told_as_one():
    assert str(JobFailed("x", "no", attempts=1)) == "job x failed after 1 attempt: no"
    assert str(JobFailed("x", "no", attempts=2)) == "job x failed after 2 attempts: no"
