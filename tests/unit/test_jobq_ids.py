from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqd.cli.ids import read_id
from jobqd.cli.text import shown_id


@given(st.text(st.characters(exclude_categories=()), min_size=1) | st.text("\\xnrtu01af\n\x1b", min_size=1))
def test_an_id_that_is_shown_reads_back(job_id: str) -> None:
    shown = shown_id(job_id)
    assert read_id(shown) == job_id
    assert "\n" not in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("job_id", "shown"),
    [
        ("0192aaaa-bbbb", "0192aaaa-bbbb"),
        ("film é 7", "film é 7"),
        ("C:\\films\\7", "C:\\films\\7"),
        ("C:\\new", "C:\\\\new"),
        ("\x1b[31m\n", "\\x1b[31m\\n"),
        ("\udcff", "\\udcff"),
        ("\\x1b", "\\\\x1b"),
    ],
)
def test_an_ordinary_id_is_shown_as_it_is(job_id: str, shown: str) -> None:
    assert shown_id(job_id) == shown
