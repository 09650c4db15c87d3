"""What goes between the daemon and a child: nothing that a child sends is believed unless it is what it should be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.children.frames import HEADER, BrokenFrame, decode, encode, length
from jobqd.children.outcomes import outcome_message, read_outcome
from jobqd.children.process import death
from jobqd.children.reports import WireSink
from jobqd.logs.record import Record
from jobqd.runs import Completed, Crashed, Failed, Interrupted, Outcome, Snoozed

OUTCOMES = [
    Completed('{"url":"…"}'),
    Failed("no such film", "ValueError", "Traceback …", delay=1.5, final=True),
    Failed("no such film", "ValueError"),
    Snoozed(300.0),
    Interrupted("lost its lease"),
]


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.booleans(), max_size=5))
def test_a_message_survives_its_frame(message: dict[str, Any]) -> None:
    frame = encode(message)
    size = length(frame[: HEADER.size], 10**6)
    assert size == len(frame) - HEADER.size
    assert decode(frame[HEADER.size :]) == message


def test_bytes_of_a_job_that_are_not_utf8_survive() -> None:
    message = {"source": b"film-\xff.mp4".decode("utf-8", "surrogateescape")}
    assert decode(encode(message)[HEADER.size :]) == message


def test_a_frame_beyond_the_limit_is_refused_before_it_is_read() -> None:
    assert length(HEADER.pack(100), 100) == 100
    with pytest.raises(BrokenFrame, match="101 bytes long, more than the 100 allowed"):
        length(HEADER.pack(101), 100)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b'{"a":NaN}', b'{"a":-Infinity}', b"\xff", b"[" * 100_000])
def test_what_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(BrokenFrame):
        decode(text)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_an_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    message = json.loads(json.dumps(outcome_message(outcome)))
    assert message["kind"] == "outcome"
    assert read_outcome(message, 1000) == outcome


def test_a_child_cannot_tell_of_its_own_death() -> None:
    with pytest.raises(TypeError):
        outcome_message(Crashed("it died"))


FAILED = {"end": "failed", "error": "e", "error_type": "t", "traceback": "", "delay": None, "final": False}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"end": "crashed", "error": "x"},
        {"end": "lapsed", "reason": "x"},
        {"end": "completed"},
        {"end": "completed", "result": 7},
        {"end": "completed", "result": "x" * 1001},
        {"end": "completed", "result": "ü" * 501},
        {"end": "snoozed", "delay": -1},
        {"end": "snoozed", "delay": True},
        {"end": "snoozed", "delay": 1e999},
        {"end": "interrupted", "reason": None},
        {**FAILED, "delay": "soon"},
        {**FAILED, "final": 1},
        {**FAILED, "error": ["e"]},
    ],
    ids=repr,
)
def test_an_outcome_that_no_child_may_tell_of_is_refused(message: dict[str, Any]) -> None:
    assert read_outcome(FAILED, 1000) == Failed("e", "t")
    with pytest.raises(BrokenFrame):
        read_outcome(message, 1000)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL (perhaps memory ran out)"),
        (-50, "was killed by signal 50"),
    ],
)
def test_a_death_is_told_in_words(status: int, words: str) -> None:
    assert death(status) == words


class FrameWire:
    """Takes what is sent, as frames."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, message: dict[str, Any]) -> None:
        self.frames.append(encode(message))


def test_no_record_of_a_log_is_longer_than_what_the_daemon_takes() -> None:
    wire, film = FrameWire(), "\U0001f3ac" * 10**6
    fields = {f"{number}{film}": film for number in range(100)}
    WireSink(wire).write(Record(0.0, 20, film, fields, film))  # type: ignore[arg-type]
    WireSink(wire).write(Record(0.0, 20, "short", fields))  # type: ignore[arg-type]
    assert all(len(frame) < 2**20 for frame in wire.frames)


def test_the_parts_of_a_record_are_kept_as_they_are() -> None:
    wire = FrameWire()
    fields = {"film": "in.mp4", "width": 1280, "x": "x" * 30_000, "ok": True, "what": OSError("no")}
    WireSink(wire).write(Record(0.0, 20, "working", fields, "Traceback"))  # type: ignore[arg-type]
    kept = decode(wire.frames[0][HEADER.size :])["fields"]
    assert kept == {**fields, "what": "OSError('no')", "traceback": "Traceback"}
