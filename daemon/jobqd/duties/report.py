"""What people learn of each run: one line at its end, and the application's hooks for dead letters."""

from __future__ import annotations

from typing import Any

from jobqd.duties.hooks import DeadHooks
from jobqd.duties.sandbox import Sandbox
from jobqd.duties.settle import Pending
from jobqd.handlers import DeadLetter, Handlers
from jobqd.job import Claimed
from jobqd.logs import RunLog
from jobqd.retry import Settlement
from jobqd.runs import Ending, Interrupted, Run

_GIVEN_AWAY = {Ending.CANCELLED: "job.cancelled", Ending.LOST: "job.lost"}
_REFUSALS = {
    "cancelled": "the job was cancelled meanwhile",
    "stale": "this run had lost its lease",
    "gone": "the job's hash is gone",
}


class Reporter:
    """Writes the line of each settled run and calls the `on_dead` hooks."""

    def __init__(self, log: Any, run_log: RunLog, handlers: Handlers, sandbox: Sandbox | None = None) -> None:
        self._log = log
        self._sandbox = sandbox
        self._run_log = run_log
        self._hooks = DeadHooks(log, handlers)

    def settled(self, pending: Pending, answer: str) -> None:
        """Report one answer of a settle."""
        order = pending.order
        if answer.startswith("error:"):
            self._log.error("job.not_recorded", outcome=order.to, error=answer, **_facts(pending.run))
        elif pending.run.ending in _GIVEN_AWAY and isinstance(pending.outcome, Interrupted) and answer != "ok":
            self._log.info(_GIVEN_AWAY[pending.run.ending], **_facts(pending.run))
        elif answer in _REFUSALS:
            self._log.warning("job.refused", reason=_REFUSALS[answer], outcome=order.to, **_facts(pending.run))
        elif order.to == "completed":
            if self._run_log.admit():
                self._run_log.ended("job.completed", **_facts(pending.run))
        elif order.to == "retrying":
            self._log.warning(
                "job.retrying", error=order.error, error_type=order.error_type, delay=order.delay,
                max_attempts=pending.run.policy.max_attempts, traceback=order.traceback or None, **_facts(pending.run),
            )  # fmt: skip
            self._hint(pending.run.claimed, order)
        elif order.to == "dead":
            self._log.error(
                "job.dead", error=order.error, error_type=order.error_type, traceback=order.traceback or None,
                **_facts(pending.run),
            )  # fmt: skip
            self._hint(pending.run.claimed, order)
            self.dead(pending.run.claimed, order)
        elif order.to == "scheduled":
            self._log.info("job.snoozed", delay=order.delay, **_facts(pending.run))
        else:
            reason = getattr(pending.outcome, "reason", None)
            self._log.info("job.released", reason=reason, **_facts(pending.run))

    def _hint(self, claimed: Claimed, order: Settlement) -> None:
        if self._sandbox is not None:
            self._sandbox.failed(claimed, order)

    def dead(self, claimed: Claimed, order: Settlement) -> None:
        """Call the application's hooks for a job that this daemon dead-lettered."""
        if not self._hooks.wanted:
            return
        letter = DeadLetter(
            claimed.id, claimed.type, claimed.fields, order.error, order.error_type, order.traceback,
            claimed.attempts + (order.charge == "attempts"),
        )  # fmt: skip
        self._hooks.call(letter)

    def tick(self) -> None:
        """Tell how many lines were left out lately; to be called now and then."""
        self._run_log.tick()

    def not_recorded(self, pending: Pending) -> None:
        """Report an outcome that Redis did not take before the stop: the job will run again."""
        self._log.error("job.not_recorded", outcome=pending.order.to, **_facts(pending.run))

    async def wait_hooks(self, timeout: float) -> None:
        """Give hooks under way so many seconds to end."""
        await self._hooks.wait(timeout)

    def flush(self) -> None:
        """Tell how many lines were left out since the last tick: to be called before the log is closed."""
        self._run_log.flush()


def _facts(run: Run) -> dict[str, Any]:
    claimed = run.claimed
    return {
        "job_id": claimed.id, "job_type": claimed.type, "attempt": claimed.attempts + 1, "fence": claimed.fence,
        "duration": run.ended - run.started, "waited": claimed.waited(),
    }  # fmt: skip
