"""The limits of each job: its hash over settings over decorator over the global setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobqd.clock import Log
from jobqd.handlers import Handlers
from jobqd.job import Claimed, integer
from jobqd.runs import Policy
from jobqd.settings import Settings
from jobqd.units import parse_duration

_PER_TYPE = (
    "max_attempts", "timeout", "retry_delay", "retry_max_delay", "job_ttl", "drain_timeout", "stall_timeout",
)  # fmt: skip


class Policies:
    """Resolves the policy of a job and the cap of a type; one per daemon."""

    def __init__(self, settings: Settings, handlers: Handlers, log: Log | None = None) -> None:
        self._settings = settings
        self._handlers = handlers
        self._log = log
        self._by_type: dict[str, Policy] = {}
        self._told: set[tuple[str, str]] = set()

    def adopt(self, settings: Settings) -> None:
        """Follow other settings from now on; runs keep the policy that they were begun with."""
        self._settings = settings
        self._by_type.clear()

    def of(self, claimed: Claimed) -> Policy:
        """Return the policy of one job; a producer may set `max_attempts` and `timeout` in its hash."""
        policy = self.of_type(claimed.type)
        fields = claimed.fields
        if "max_attempts" in fields or "timeout" in fields:
            policy, ignored = _overridden(policy, fields)
            for name in ignored:
                self._tell_ignored(claimed, name)
        return policy

    def _tell_ignored(self, claimed: Claimed, name: str) -> None:
        """Warn once of a field that no job of this type can have meant; types without a handler have no limit."""
        if self._log is None or (claimed.type, name) in self._told or self._handlers.get(claimed.type) is None:
            return
        self._told.add((claimed.type, name))
        self._log.warning(
            "job.option_ignored", job_id=claimed.id, job_type=claimed.type, field=name, value=claimed.fields[name][:100]
        )

    def of_type(self, job_type: str) -> Policy:
        """Return the policy of a type."""
        policy = self._by_type.get(job_type)
        if policy is None:
            policy = self._resolve(job_type)
            if self._handlers.get(job_type) is not None:
                # Types without a handler here are not kept: their number has no limit.
                self._by_type[job_type] = policy
        return policy

    def cap(self, job_type: str) -> int | None:
        """Return how many of a type may run at once in this daemon, None for no cap of its own."""
        return self._option(job_type, "concurrency")  # type: ignore[no-any-return]

    def _resolve(self, job_type: str) -> Policy:
        chosen: dict[str, Any] = {name: getattr(self._settings, name, None) for name in _PER_TYPE}
        for name in _PER_TYPE:
            value = self._option(job_type, name)
            if value is not None:
                chosen[name] = value
        # A type that raises its first delay above the global maximum means it.
        chosen["retry_max_delay"] = max(chosen["retry_max_delay"], chosen["retry_delay"])
        settings = self._settings
        return Policy(dead_ttl=settings.dead_ttl, max_age=settings.max_age, max_crashes=settings.max_crashes, **chosen)

    def _option(self, job_type: str, name: str) -> Any:
        for_type = self._settings.jobs.get(job_type)
        value = getattr(for_type, name, None)
        if value is None:
            handler = self._handlers.get(job_type)
            value = getattr(handler.options, name, None) if handler is not None else None
        return value


def _overridden(policy: Policy, fields: Mapping[str, str]) -> tuple[Policy, list[str]]:
    """Return the policy with what the producer wrote, and the names of fields that are none of its kind."""
    ignored = []
    if attempts := integer(fields.get("max_attempts")):
        policy = replace(policy, max_attempts=attempts)
    elif fields.get("max_attempts"):
        ignored.append("max_attempts")
    if timeout := _timeout(fields.get("timeout", "")):
        policy = replace(policy, timeout=timeout)
    elif fields.get("timeout"):
        ignored.append("timeout")
    return policy, ignored


def _timeout(text: str) -> float:
    try:
        return max(0.0, parse_duration(text))
    except ValueError:
        return 0.0
