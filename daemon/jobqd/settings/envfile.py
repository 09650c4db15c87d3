"""Files of environment variables as systemd reads them (systemd.exec(5), EnvironmentFile=)."""

from __future__ import annotations

import re

# Quotes count only where a value begins, or behind another part in quotes. One that is never closed goes on to the end
# of the file. In double quotes a backslash protects only what a shell would look at.
_ASSIGNMENT = re.compile(
    r"""
    ^[ \t\r]* (?P<name>[^\s\#;=][^=\n]*) =
    (?P<quoted>(?:[ \t\r]* (?:'[^']*(?:'|\Z) | "(?:\\.|[^"\\])*(?:"|\Z)) )*)
    [ \t\r]* (?P<bare>(?:\\.|[^\n\\])*)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|[^"\\])*)"?""", re.DOTALL)
_IN_DOUBLE_QUOTES = re.compile(r'\\(["\\`$\n])')
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_BLANK_END = re.compile(r"(?<!\\)[ \t\r]+\Z")


def variables(text: str) -> dict[str, str]:
    """Return the variables that a file of this text sets; the last line for a name wins, other lines are ignored."""
    return {match["name"].rstrip(): _value(match["quoted"], match["bare"]) for match in _ASSIGNMENT.finditer(text)}


def _value(quoted: str, bare: str) -> str:
    parts = []
    for match in _QUOTED.finditer(quoted):
        single, double = match.groups()
        parts.append(single if double is None else _IN_DOUBLE_QUOTES.sub(_kept, double))
    parts.append(_ESCAPED.sub(_kept, _BLANK_END.sub("", bare)))
    return "".join(parts)


def _kept(match: re.Match[str]) -> str:
    """An escaped character stands for itself, an escaped line break for nothing."""
    return "" if match[1] == "\n" else match[1]
