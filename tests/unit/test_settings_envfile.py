"""Environment files are read as systemd reads them (the lab compares with systemd itself)."""

from __future__ import annotations

import pytest

from jobqd.settings.envfile import variables

CASES = {
    "A=1": {"A": "1"},
    "A=1\nB=2\n": {"A": "1", "B": "2"},
    "A=": {"A": ""},
    "A=1\nA=2": {"A": "2"},
    "  A = b c  \n": {"A": "b c"},
    "# A=1\n; B=2\nC=3 # no comment": {"C": "3 # no comment"},
    "no assignment\n=x\nA=1": {"A": "1"},
    "A='b  c'": {"A": "b  c"},
    "A='it\\'": {"A": "it\\"},
    'A="b\\"c\\\\d\\$e\\`f\\g"': {"A": 'b"c\\d$e`f\\g'},
    "A='one\ntwo'\nB=1": {"A": "one\ntwo", "B": "1"},
    'A="one\\\ntwo"': {"A": "onetwo"},
    "A=one\\\n  two": {"A": "one  two"},
    "A=a\\ b\\\\c": {"A": "a b\\c"},
    "A='b' \"c\"'d'": {"A": "bcd"},
    "A=b'c'": {"A": "b'c'"},
    "A='b'c d": {"A": "bc d"},
    "A='open\nB=1": {"A": "open\nB=1"},
    "A=1\r\nB=2\r\n": {"A": "1", "B": "2"},
    "A=x\\ ": {"A": "x "},
}


@pytest.mark.parametrize("text", CASES)
def test_a_file_is_read_as_systemd_reads_it(text):
    assert variables(text) == CASES[text]
