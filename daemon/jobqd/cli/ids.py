"""Ids of jobs on a command line: as they are shown, so that what is shown can be given back."""

from __future__ import annotations

import re

# What `jobqd.cli.text` writes for a character that could steer a terminal.
_ESCAPE = re.compile(r"\\(?:([\\nrt])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_NAMED = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def read_id(text: str) -> str:
    r"""Return the id that a text stands for: \xNN, \uNNNN, \n, \r and \t are characters, and \\ is a backslash."""
    return _ESCAPE.sub(lambda match: _NAMED.get(match[1] or "") or chr(int(match[2] or match[3], 16)), text)
