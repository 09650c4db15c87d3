"""How a program's output becomes lines."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from jobqd.programs.lines import MAX_LINE, LineSplitter, Tail


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


def test_lf_cr_and_crlf_end_a_line() -> None:
    assert split(b"a\rb\r\nc\n\nd") == ["a", "b", "c", "", "d"]


def test_a_carriage_return_hands_its_line_over_at_once() -> None:
    assert LineSplitter().feed(b"50 %\r") == ["50 %"]


def test_crlf_cut_in_two_is_one_end() -> None:
    assert split(b"a\r", b"\n", b"\nb") == ["a", "", "b"]


@given(st.binary(max_size=60).map(lambda data: data.translate(bytes(b"ab\r\n"[i % 4] for i in range(256)))), st.data())
def test_the_cuts_between_chunks_change_nothing(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    whole = re.split(r"\r\n|\r|\n", stream.decode())
    assert split(*chunks) == (whole if whole[-1] else whole[:-1])


def test_a_line_without_an_end_comes_in_pieces_and_is_not_kept() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(10) for line in splitter.feed(b"x" * 50_000)]
    assert {len(line) for line in lines} == {MAX_LINE}
    lines += splitter.finish()
    assert "".join(lines) == "x" * 500_000
    assert split(b"y" * 150_000 + b"\nz\n") == ["y" * MAX_LINE, "y" * MAX_LINE, "y" * (150_000 - 2 * MAX_LINE), "z"]


def test_no_piece_ends_inside_a_character() -> None:
    text = "a" + "é€𝄞" * 20_000
    lines = split(text.encode())
    assert len(lines) > 1
    assert "".join(lines) == text


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert split(b"\xff\xfeok\n" + b"\x80" * (MAX_LINE + 10)) == [
        "\ufffd\ufffdok",
        "\ufffd" * (MAX_LINE - 3),
        "\ufffd" * 13,
    ]


def test_the_tail_keeps_the_last_lines_in_bounded_memory() -> None:
    tail = Tail()
    tail.add([str(number) for number in range(1000)])
    assert tail.lines == [str(number) for number in range(950, 1000)]
    tail.add(["x" * 100_000, "last"])
    assert tail.lines[-1] == "last"
    assert sum(map(len, tail.lines)) <= 16 * 1024
