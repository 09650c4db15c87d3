"""Outcomes on their way from a child: as a message, and back with every value checked."""

from __future__ import annotations

import math
from typing import Any

from jobqd.children.frames import BrokenFrame
from jobqd.runs import Completed, Failed, Interrupted, Outcome, Snoozed


def outcome_message(outcome: Outcome) -> dict[str, Any]:
    """Return the message that tells how a run ended in a child."""
    message: dict[str, Any]
    match outcome:
        case Completed(result):
            message = {"end": "completed", "result": result}
        case Failed():
            message = {
                "end": "failed", "error": outcome.error, "error_type": outcome.error_type,
                "traceback": outcome.traceback, "delay": outcome.delay, "final": outcome.final,
            }  # fmt: skip
        case Snoozed(delay):
            message = {"end": "snoozed", "delay": delay}
        case Interrupted(reason):
            message = {"end": "interrupted", "reason": reason}
        case _:
            raise TypeError(f"a child cannot tell of {outcome!r}")
    return {"kind": "outcome", **message}


def read_outcome(message: dict[str, Any], max_result: int) -> Outcome:
    """Return the outcome that a message tells of. Raises BrokenFrame if it is none that a child may tell of."""
    match message:
        case {"end": "completed", "result": str(result)} if len(result.encode("utf-8", "replace")) <= max_result:
            return Completed(result)
        case {
            "end": "failed", "error": str(error), "error_type": str(error_type), "traceback": str(trace),
            "delay": delay, "final": bool(final),
        } if delay is None or _is_delay(delay):  # fmt: skip
            return Failed(error, error_type, trace, delay, final)
        case {"end": "snoozed", "delay": delay} if _is_delay(delay):
            return Snoozed(delay)
        case {"end": "interrupted", "reason": str(reason)}:
            return Interrupted(reason)
    raise BrokenFrame("it tells of no outcome that there is")


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
