"""The one place that decides what an outcome leads to: completed, tried again after a delay, or dead-lettered.

Pure: a handler's failure and a lapsed lease end here alike, whoever noticed them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import assert_never

from jobqd.clock import Random
from jobqd.job import Claimed
from jobqd.runs import Completed, Crashed, Failed, Interrupted, Lapsed, Outcome, Policy, Snoozed
from jobqd.texts import CLASS_NAME_LIMIT, shorten_text

MAX_LAPSES = 10
"""A job whose lease ran out so often is dead-lettered: it never gets to its end."""
ERROR_LIMIT = 4_000
"""Most characters of an error's text that are kept."""
DELAY_MAX = 100 * 366 * 86400.0
"""The longest pause, in seconds: what is due beyond all time would be taken for broken, and so for due now."""
_HISTORY_ERROR_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Settlement:
    """One order to the store: where a job goes from a run, and what is written with it. Times in seconds.

    `to` is completed, dead, ready, retrying or scheduled; `charge` the counter raised by one: attempts, crashes,
    interruptions or none. `guard` says who may settle: "run" its owner, "lapse" anyone once the lease ran out,
    "dead" whoever knows that the owner is dead.
    """

    job_id: str
    worker: str
    fence: int
    to: str
    charge: str = ""
    delay: float = 0.0
    ttl: float = 0.0
    result: str = ""
    error: str = ""
    error_type: str = ""
    traceback: str = ""
    history: str = ""
    guard: str = "run"


def backoff(failures: int, policy: Policy, random: Random) -> float:
    """Return the seconds to wait after so many failures: doubled each time up to the maximum, half of it random."""
    ceiling = min(policy.retry_max_delay, policy.retry_delay * 2.0 ** min(failures - 1, 60))
    return ceiling / 2 + random() * ceiling / 2


def expired(claimed: Claimed, policy: Policy) -> bool:
    """Whether the job is not finished `max_age` after it was first due."""
    try:
        due = float(claimed.fields.get("_due_at", ""))
    except ValueError:
        return False
    return claimed.claimed_at - due > policy.max_age


def decide(
    claimed: Claimed, worker: str, outcome: Outcome, policy: Policy, random: Random, guard: str = "run"
) -> Settlement:
    """Return the settlement of a run that ended so."""
    key = (claimed.id, worker, claimed.fence)
    match outcome:
        case Completed(result):
            return Settlement(*key, "completed", _charge(claimed, policy), ttl=policy.job_ttl, result=result)
        case Failed():
            return _failed(key, claimed, outcome, policy, random)
        case Snoozed(delay):
            return Settlement(*key, "scheduled", delay=min(DELAY_MAX, max(1.0, delay)))
        case Interrupted(begun=begun):
            return Settlement(*key, "ready", "interruptions" if begun else "")
        case Lapsed(reason):
            return _lapsed(key, claimed, reason, policy, random, guard)
        case Crashed():
            return _crashed(key, claimed, outcome, policy, random)
        case _:
            assert_never(outcome)


def _charge(claimed: Claimed, policy: Policy) -> str:
    """A job that is at its limit already (a forged field, a limit that was lowered) is not charged past it."""
    return "attempts" if claimed.attempts < policy.max_attempts else ""


def _failed(key: tuple[str, str, int], claimed: Claimed, failure: Failed, policy: Policy, random: Random) -> Settlement:
    attempt = claimed.attempts + 1
    dead = failure.final or attempt >= policy.max_attempts
    delay = backoff(attempt, policy, random) if failure.delay is None else failure.delay
    error_type = shorten_text(failure.error_type, CLASS_NAME_LIMIT)
    return Settlement(
        *key,
        "dead" if dead else "retrying",
        _charge(claimed, policy),
        delay=0.0 if dead else min(DELAY_MAX, delay),
        ttl=policy.dead_ttl,
        error=shorten_text(failure.error, ERROR_LIMIT) or error_type or "failed",
        error_type=error_type,
        traceback=failure.traceback,
        history=_history(attempt, claimed.fence, error_type, failure.error),
    )


def _lapsed(
    key: tuple[str, str, int], claimed: Claimed, reason: str, policy: Policy, random: Random, guard: str
) -> Settlement:
    crashes = claimed.crashes + 1
    history = _history(claimed.attempts + 1, claimed.fence, "LeaseLapsed", reason)
    if crashes >= MAX_LAPSES:
        error = f"its lease ran out {crashes} times, last because {reason}"
        return Settlement(
            *key, "dead", "crashes", ttl=policy.dead_ttl, error=error, error_type="LeaseLapsed", history=history,
            guard=guard,
        )  # fmt: skip
    if crashes == 1:
        return Settlement(*key, "ready", "crashes", history=history, guard=guard)
    # From the second lapse on a pause grows, so that a job that kills its daemon cannot do so in a tight loop.
    delay = backoff(crashes - 1, policy, random)
    return Settlement(*key, "retrying", "crashes", delay=delay, history=history, guard=guard)


def _crashed(key: tuple[str, str, int], claimed: Claimed, crash: Crashed, policy: Policy, random: Random) -> Settlement:
    """The one judgement that convicts: nobody else was in the process that died."""
    crashes = claimed.crashes + 1
    dead = crashes >= policy.max_crashes
    return Settlement(
        *key,
        "dead" if dead else "retrying",
        "crashes",
        delay=0.0 if dead else backoff(crashes, policy, random),
        ttl=policy.dead_ttl,
        error=shorten_text(crash.error, ERROR_LIMIT),
        error_type="Crashed",
        traceback=crash.traceback,
        history=_history(claimed.attempts + 1, claimed.fence, "Crashed", crash.error),
    )


def _history(attempt: int, fence: int, error_type: str, error: str) -> str:
    entry = {
        "attempt": attempt,
        "fence": fence,
        "error_type": error_type,
        "error": shorten_text(error, _HISTORY_ERROR_LIMIT),
    }
    return json.dumps(entry, separators=(",", ":"))
