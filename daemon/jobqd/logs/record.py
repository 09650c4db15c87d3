"""One log record, complete, on its way to a sink."""

from __future__ import annotations

import logging
import sys
import traceback
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobqd.texts import repr_of

LEVEL_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


class Caller(NamedTuple):
    """Where in the source a record was written."""

    file: str
    line: int
    function: str


@dataclass(slots=True)
class Record:
    """What happened. `time` is in Unix seconds, `exception` a formatted traceback or empty."""

    time: float
    level: int
    event: str
    fields: dict[str, Any]
    exception: str = ""
    caller: Caller | None = None

    @property
    def level_name(self) -> str:
        """The level as a word; a level between two named ones has the name of the lower."""
        return LEVEL_NAMES.get(self.level) or LEVEL_NAMES[max(10, min(50, self.level // 10 * 10))]


def level_number(name: str) -> int:
    """Return the number of a level's name in any case. Raises ValueError for an unknown one."""
    for number, known in LEVEL_NAMES.items():
        if name.strip().lower() == known:
            return number
    raise ValueError(f"log_level is {name!r}: write one of {', '.join(LEVEL_NAMES.values())}")


def format_exception(exc_info: Any) -> str:
    """Return the traceback of what was passed as `exc_info`: True, an exception or a triple; else empty."""
    error = exc_info
    if isinstance(exc_info, tuple):
        error = exc_info[1] if len(exc_info) > 1 else None
    elif exc_info and not isinstance(exc_info, BaseException):
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return ""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except BaseException:  # noqa: BLE001 - the exception's own code may raise anything
        return repr_of(error)


def find_caller() -> Caller | None:
    """Return the innermost caller outside of this package."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").startswith("jobqd.logs"):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Caller(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
