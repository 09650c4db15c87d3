"""Text for people: safe on a terminal, aligned, coloured only where somebody looks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import typer
from rich.cells import cell_len, set_cell_size

from jobqd.cli.ids import read_id
from jobqd.units import format_duration

# C0 but tab and line break, DEL, C1 (terminals may obey U+009B), separators and overrides that reorder a
# line,
# and lone surrogates, which UTF-8 cannot hold. Not `jobqd.logs`: loading structlog would double the start-up
# time.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_STATUS_COLOURS = {
    "queued": "cyan", "processing": "blue", "scheduled": "magenta", "retrying": "yellow", "held": "yellow",
    "completed": "green", "failed": "red", "cancelled": "bright_black", "running": "green", "draining": "yellow",
}  # fmt: skip


def block(text: str) -> str:
    """Return text with its lines and tabs kept, and all that could steer a terminal escaped."""
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)


def line(value: Any) -> str:
    """Return any value as one line that is safe to show."""
    return block(str(value)).replace("\n", "\\n").replace("\t", "\\t")


def shown_id(job_id: str) -> str:
    """Return an id as one safe line that the commands read as this id again."""
    text = line(job_id)
    return text if read_id(text) == job_id else line(job_id.replace("\\", "\\\\"))


def ago(seconds: float) -> str:
    """Return how long ago something was: "3m ago"."""
    return "just now" if seconds < 1 else f"{short(seconds)} ago"


def due(seconds: float) -> str:
    """Return when something will be: "due in 12s"."""
    return "due now" if seconds <= 0 else f"due in {short(seconds)}"


def short(seconds: float) -> str:
    """Return a duration without digits that nobody reads: 12.34 → "12s"."""
    return format_duration(round(seconds) if seconds >= 1 else round(max(0.0, seconds), 3))


def count(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return a number of things: "1 job", "2,000 jobs"."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


@dataclass(frozen=True, slots=True)
class Paper:
    """What is written on: its width in columns (None: as wide as it takes) and whether it shows colours."""

    width: int | None
    colour: bool

    @classmethod
    def of(cls, stream: IO[str]) -> Paper:
        """Return what a stream is: colours only on a terminal that wants them, all of a line on a pipe."""
        if not stream.isatty():
            return cls(None, False)
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        try:
            width = os.get_terminal_size(stream.fileno()).columns or 80
        except OSError:
            width = 80
        return cls(width, not plain)

    def style(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """Return a text in a colour, if this shows any."""
        if not self.colour or not text:
            return text
        return typer.style(text, fg=colour, bold=bold or None, dim=dim or None)

    def status(self, status: str) -> str:
        """Return a status in its colour."""
        return self.style(line(status), _STATUS_COLOURS.get(status))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
        """Return aligned columns; the last is cut where the paper ends. Cells are one safe line each."""
        widths = [max(cell_len(row[at]) for row in (head, *rows)) for at in range(len(head))]
        lines = [self._row(head, widths, right, head=True)]
        lines += [self._row(row, widths, right, head=False) for row in rows]
        return "\n".join(lines)

    def _row(self, cells: Sequence[str], widths: Sequence[int], right: frozenset[int], *, head: bool) -> str:
        parts, used, last = [], 0, len(cells) - 1
        for at, cell in enumerate(cells):
            gap = " " * (widths[at] - cell_len(cell))
            text = self.cut(cell, used) if at == last else cell
            shown = self.style(text, bold=True) if head else self.status(text)
            padded = shown if at == last else gap + shown if at in right else shown + gap
            parts.append(padded)
            used += widths[at] + 2
        return "  ".join(parts).rstrip()

    def cut(self, text: str, used: int) -> str:
        """Return as much of a text as fits beside `used` columns."""
        room = None if self.width is None else max(8, self.width - used)
        if room is None or cell_len(text) <= room:
            return text
        return set_cell_size(text, room - 1).rstrip() + "…"


def answer(text: str) -> None:
    """Write the answer of a command to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
