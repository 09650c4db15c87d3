"""What one job is, as read from its hash. Nothing read there is trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobqd.job import DAEMON_FIELDS, created_at, integer

TERMINAL = frozenset({"completed", "failed", "cancelled"})
"""The statuses with which a job ends."""
_PRIORITY = re.compile(r"-?\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `percent` is 0 to 100; `eta_seconds` are left; None: not known."""

    status: str
    percent: float | None = None
    step: str | None = None
    eta_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class JobInfo:
    """Everything Redis knows about one job when it was looked at. Times are Unix seconds of Redis's clock.

    `place` is the index that holds it: ready, active, scheduled, held, or "" for none; `score` its score
    there. `ahead` counts the jobs before it among the ready. `ttl` are the seconds until it is forgotten.
    """

    id: str
    seen_at: float
    fields: Mapping[str, str]
    place: str = ""
    score: float | None = None
    ahead: int | None = None
    ttl: float | None = None
    status: str = field(init=False)
    type: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", self.fields.get("status") or "queued")
        object.__setattr__(self, "type", self.fields.get("type", ""))

    @property
    def ended(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.status in TERMINAL

    @property
    def priority(self) -> int | None:
        """The lower the sooner."""
        text = self.fields.get("priority", "")
        if self.place in ("ready", "held") and self.score is not None and math.isfinite(self.score):
            return math.floor(self.score)
        return int(text) if _PRIORITY.fullmatch(text) else None

    @property
    def attempts(self) -> int:
        """Runs charged so far."""
        return integer(self.fields.get("attempts"))

    @property
    def max_attempts(self) -> int | None:
        """The producer's own limit; None: the daemon's settings decide."""
        return integer(self.fields.get("max_attempts")) or None

    @property
    def created_at(self) -> float | None:
        """When the producer says it was enqueued."""
        return created_at(self.fields) or None

    @property
    def started_at(self) -> float | None:
        """When its last run was claimed."""
        return number(self.fields.get("started_at"))

    @property
    def finished_at(self) -> float | None:
        """When it ended."""
        return number(self.fields.get("finished_at"))

    @property
    def due_at(self) -> float | None:
        """When a delayed job or a retry becomes ready."""
        return self.score if self.place == "scheduled" else None

    @property
    def held(self) -> str:
        """Why it may not run now, such as "type:video_render"; empty if it may."""
        return self.fields.get("held", "")

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return progress_of(self.status, self.fields)

    @property
    def payload(self) -> Any:
        """The producer's payload as JSON value; its text if that is not JSON; None if there is none."""
        return decoded(self.fields.get("payload"))

    @property
    def result(self) -> Any:
        """The handler's result as JSON value; its text if that is not JSON; None if there is none."""
        return decoded(self.fields.get("result"))

    @property
    def checkpoint(self) -> Any:
        """What the last run saved."""
        return decoded(self.fields.get("checkpoint"))

    @property
    def own_fields(self) -> dict[str, str]:
        """The producer's own hash fields."""
        return {
            name: text for name, text in self.fields.items() if name not in DAEMON_FIELDS and not name.startswith("_")
        }

    @property
    def history(self) -> list[dict[str, Any]]:
        """The failures so far, oldest first: at, attempt, fence, error_type, error."""
        lines = (decoded(line) for line in self.fields.get("_history", "").splitlines())
        return [line for line in lines if isinstance(line, dict)]


def number(text: Any) -> float | None:
    """Return a finite number that Redis holds as text, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def decoded(text: str | None) -> Any:
    """Return a JSON text's value, or the text itself if it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def progress_of(status: str, facts: Mapping[str, Any]) -> Progress:
    """Return the progress that a hash or a published message tells."""
    percent, eta, step = number(facts.get("progress")), number(facts.get("eta_seconds")), facts.get("step")
    return Progress(
        status,
        None if percent is None else min(100.0, max(0.0, percent)),
        step if isinstance(step, str) and step else None,
        None if eta is None or eta < 0 else eta,
    )


def progress_message(text: str) -> dict[str, Any]:
    """Return what was published on a job's channel; anything that is not a JSON object tells nothing."""
    value = decoded(text)
    return value if isinstance(value, dict) else {}
