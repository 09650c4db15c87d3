"""Lines for a person at a terminal."""

from __future__ import annotations

import logging
import time

from jobqd.logs.record import Record
from jobqd.logs.sentences import SENTENCES, Description, describe
from jobqd.logs.text import block, cut

_RESET = "\x1b[0m"
_DIM, _BOLD = "2", "1"
_RED, _GREEN, _YELLOW, _BLUE = "31", "32", "33", "34"
_WIDEST_TYPE = 24
_INDENT = " " * 11


class ConsoleFormat:
    """Renders `12:03:44 ✓ video_render ID completed in 4.2s (waited 12ms, attempt 1)`.

    The job's id is whole, to be pasted into `jobq show`. Types are padded to the widest seen. `symbols` is
    false for a terminal that cannot show more than ASCII.
    """

    def __init__(self, *, colour: bool, symbols: bool = True) -> None:
        self._colour = colour
        self._symbols = symbols
        self._type_width = 0

    def render(self, record: Record) -> bytes:
        """Return the record's lines, the last ended by a line break."""
        description = describe(record)
        clock = time.strftime("%H:%M:%S", time.localtime(record.time))
        parts = [self._paint(_DIM, clock), self._mark(record), *self._subject(record, description)]
        parts.append(self._text(record, description.text))
        parts += [self._paint(_DIM, f"{name}={value}") for name, value in description.rest]
        lines = [" ".join(filter(None, parts))]
        for text in description.blocks:
            lines += [self._paint(_DIM, _INDENT + line) for line in block(cut(text)).split("\n")]
        encoding = "utf-8" if self._symbols else "ascii"
        return ("\n".join(lines) + "\n").encode(encoding, "backslashreplace")

    def _subject(self, record: Record, description: Description) -> list[str]:
        job_type, job_id = description.job_type, description.job_id
        if not job_id:
            return []
        self._type_width = max(self._type_width, min(len(job_type), _WIDEST_TYPE))
        return [self._paint(_BOLD, job_type.ljust(self._type_width)), self._paint(_DIM, job_id)]

    def _mark(self, record: Record) -> str:
        if record.level >= logging.ERROR:
            # A cross looks like the end of a job: trouble that the daemon lives with is none.
            passing = record.event in SENTENCES and not record.event.startswith("job.")
            if passing and record.level < logging.CRITICAL:
                return self._paint(_RED, "!")
            return self._paint(_RED, "✗" if self._symbols else "x")
        if record.level >= logging.WARNING:
            return self._paint(_YELLOW, "!")
        if record.level < logging.INFO:
            return self._paint(_DIM, "·" if self._symbols else ".")
        if record.event in ("job.completed", "daemon.ready", "redis.back"):
            return self._paint(_GREEN, "✓" if self._symbols else "+")
        return self._paint(_BLUE, "•" if self._symbols else "-")

    def _text(self, record: Record, text: str) -> str:
        if record.level >= logging.ERROR:
            return self._paint(_RED, text)
        return self._paint(_YELLOW, text) if record.level >= logging.WARNING else text

    def _paint(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}{_RESET}" if self._colour and text else text
