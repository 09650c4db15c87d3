"""What an exception that a handler raised means for its run."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import traceback
from pathlib import Path

from jobqd.errors import Fail, LeaseLost, Retry, Snooze
from jobqd.retry import ERROR_LIMIT
from jobqd.runs import Ending, Failed, Interrupted, Outcome, Run, Snoozed
from jobqd.texts import class_name, repr_of, shorten_text, text_of
from jobqd.units import format_duration, parse_duration

_TRACEBACK_LIMIT = 8_000
EXIT_LIMIT = 1_000
"""Most characters that are kept of what a handler gave to sys.exit."""
_HERE = Path(__file__).parent
# What lies between the event loop and a handler: it tells nobody why the handler failed.
_OUTER_FRAMES = (str(_HERE / "executor.py"), str(_HERE / "handlers"), str(concurrent.futures.thread.__file__))


def outcome_of_error(error: BaseException, *, lease_lost: bool = False) -> Outcome:
    """Return how a run ended whose handler raised this; never raises, whatever the exception's own code does.

    `lease_lost`: whether Redis said so to this run. A LeaseLost out of nothing is a failure like any other: believed,
    its job would be handed back uncharged, and run again at once, for ever.
    """
    try:
        return _outcome_of(error, lease_lost)
    except BaseException as broken:  # noqa: BLE001 - an exception that cannot be looked at is a failure like any other
        name = class_name(error)
        return Failed(f"{name}, which could not be read: {class_name(broken)}", name)


def outcome_of_ending(run: Run, ending: Ending) -> Outcome:
    """Return how a run ended that we ended."""
    if ending is Ending.TIMEOUT:
        return Failed(f"timed out after {format_duration(run.policy.timeout)}", "Timeout")
    if ending is Ending.STALLED:
        limit = format_duration(run.policy.stall_timeout or 0)
        return Failed(f"no progress for {limit} (stall_timeout)", "Stalled")
    return Interrupted(str(ending))


def failure_of(error: BaseException) -> Failed:
    """Return an exception as the failure of a run, with its traceback."""
    return Failed(_message(error), class_name(error), _trace(error))


def _outcome_of(error: BaseException, lease_lost: bool) -> Outcome:
    match error:
        case Retry():
            return _retry(error)
        case Fail():
            return Failed(_message(error), "Fail", final=True)
        case Snooze():
            return _snooze(error)
        case LeaseLost() if lease_lost:
            return Interrupted(str(Ending.LOST))
        case asyncio.CancelledError():
            return Failed("the handler was cancelled from within", "CancelledError", _trace(error))
        case SystemExit():
            said = shorten_text(repr_of(error.code), EXIT_LIMIT)
            return Failed(f"the handler called sys.exit({said})", "SystemExit", _trace(error))
        case _:
            return failure_of(error)


def _retry(error: Retry) -> Failed:
    try:
        delay = None if error.delay is None else parse_duration(error.delay)
    except BaseException as wrong:  # noqa: BLE001 - whatever a subclass made of it, the job's backoff will do
        return Failed(shorten_text(f"{_message(error)} (its delay: {text_of(wrong)})", ERROR_LIMIT), "Retry")
    return Failed(_message(error), "Retry", delay=delay)


def _snooze(error: Snooze) -> Outcome:
    try:
        return Snoozed(parse_duration(error.delay))
    except BaseException as wrong:  # noqa: BLE001 - a failure, for a time of our own choice might be run for ever
        return Failed(shorten_text(f"{_message(error)} (its delay: {text_of(wrong)})", ERROR_LIMIT), class_name(error))


def _message(error: BaseException) -> str:
    text = text_of(error)
    if isinstance(error, KeyError):
        text = f"KeyError: {text}"  # the bare key tells nobody what happened
    # Cut here, and not only where it is stored: from a child process it goes through a pipe.
    return shorten_text(text, ERROR_LIMIT) or class_name(error)


def _trace(error: BaseException) -> str:
    """Return the traceback from the application's first frame on, cut in the middle when it is long."""
    try:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OUTER_FRAMES):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    except BaseException:  # noqa: BLE001 - the exception's own code may raise anything
        return ""
    if len(text) <= _TRACEBACK_LIMIT:
        return text
    half = _TRACEBACK_LIMIT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
