from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.units import format_duration, format_excess, format_size, parse_duration, parse_size, shorten


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90.0), (1.5, 1.5), ("90", 90.0), ("0.25", 0.25), ("250ms", 0.25), ("90s", 90.0), ("15m", 900.0),
        ("1h30m", 5400.0), ("1h 30m", 5400.0), (" 2d ", 172800.0), ("1W", 604800.0), ("1.5h", 5400.0), (0, 0.0),
        ("10m5s", 605.0),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "soon", "10m s", "1 0s", "-1", -1, "5x", "1h-30m", math.nan, math.inf, "nan", "inf", "9" * 400,
     "9" * 400 + "s", pytest.param(10**400, id="1e400"), pytest.param(10**5000, id="1e5000"), True, None, [], "h"],
)  # fmt: skip
def test_what_is_no_duration_is_a_value_error_with_a_short_message(written):
    with pytest.raises(ValueError, match="is not a duration") as caught:
        parse_duration(written)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("written", "size"),
    [(0, 0), (1048576, 2**20), ("1048576", 2**20), ("1MiB", 2**20), ("500kB", 500_000), ("1.5KiB", 1536),
     ("10 MB", 10_000_000), ("1gib", 2**30), ("7b", 7)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "big", -1, True, None, "1TiB", "-1", "1 2", "9" * 400, 1.5, [], "MiB"])
def test_what_is_no_size_is_a_value_error(written):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (0.0004, "0.4ms"), (0.9996, "1000ms"), (4.2, "4.2s"), (60, "1m"), (5400, "1h30m"),
     (86400, "1d"), (90061, "1d1h"), (3599.7, "1h")],
)  # fmt: skip
def test_durations_are_shown_as_people_read_them(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1000B"), (1023, "1023B"), (1024, "1KiB"), (1500, "1.46KiB"), (2**20, "1MiB"),
     (1023 * 1024, "1023KiB"), (5 * 2**40, "5120GiB")],
)  # fmt: skip
def test_sizes_are_shown_as_people_read_them(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "limit", "texts"),
    [
        (2**21, 2**20, ("2MiB", "1MiB")), (1001, 1000, ("1001B", "1000B")), (4097, 4096, ("4097 bytes", "4096")),
        (4097, 4095, ("4097 bytes", "4095")), (4200, 4096, ("4.1KiB", "4KiB")),
    ],
)  # fmt: skip
def test_a_size_beyond_a_limit_never_looks_like_it(size, limit, texts):
    assert format_excess(size, limit) == texts


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_shown_duration_reads_back_as_about_the_same(seconds):
    # Two units are shown, so what is cut is less than one of the larger's 24ths.
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05)


@given(st.integers(min_value=0, max_value=2**45))
def test_a_shown_size_reads_back_as_about_the_same(size):
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.01, abs=1)


def test_a_value_that_is_long_or_cannot_be_shown_is_shortened():
    assert len(shorten("x" * 10_000)) == 100
    assert shorten(10**5000) == "<int whose repr raises ValueError>"
