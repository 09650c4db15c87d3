"""Reloading: the configuration is read again, and what can change while the daemon runs does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobqd.clock import Clock, Log
from jobqd.errors import ConfigError
from jobqd.settings import Loaded, Settings
from jobqd.settings.display import shown_value, subject
from jobqd.settings.model import job_setting_names, setting_names
from jobqd.systemd import Notifier

LIVE = frozenset({
    "block_limit", "concurrency", "dead_max", "dead_ttl", "drain_timeout", "job_ttl", "log_level", "max_age",
    "max_attempts", "max_crashes", "max_interruptions", "max_payload", "max_ready", "max_result", "retry_delay",
    "retry_max_delay", "timeout",
})  # fmt: skip
"""The global settings that a reload changes, besides all those of single types. Any other needs a restart."""

Again = Callable[[Mapping[str, str]], Loaded]
"""Reads the configuration from where the daemon had it, given the environment. Raises ConfigError."""
_PREFIX = "JOBQD_"
_APART = 1.0
"""Seconds from the end of a reload to the next one that a signal asks for: a storm of signals is few of them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a reload: texts such as "concurrency: 32 -> 16"; `problem` says why nothing was changed."""

    changed: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    """Settings that differ from those in force, which need a restart."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting whose value differs."""

    name: tuple[str, ...]
    old: Any
    new: Any

    @property
    def live(self) -> bool:
        """Whether a running daemon can follow it."""
        return len(self.name) > 1 or self.name[0] in LIVE

    def __str__(self) -> str:
        old, new = (shown_value(self.name, value) or "not set" for value in (self.old, self.new))
        # Two secrets look alike.
        return f"{subject(self.name)}: {old} -> {new}" if old != new else f"{subject(self.name)}: another one"


def _one_line(text: str) -> str:
    """Return a text of several lines as the journal's short output can show it."""
    return " | ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def differences(old: Settings, new: Settings) -> Iterator[Change]:
    """Find the settings that differ, in the order of the documentation."""
    for name in setting_names():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Change((name,), before, after)
    for job_type in sorted({*old.jobs, *new.jobs}):
        for name in job_setting_names():
            before, after = (getattr(settings.jobs.get(job_type), name, None) for settings in (old, new))
            if before != after:
                yield Change(("jobs", job_type, name), before, after)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a daemon is started with: its settings, where they come from, and the environment."""

    settings: Settings
    again: Again
    environ: Mapping[str, str]


class Reloader:
    """Reads the configuration again, one time after the other, and hands what can change to `adopt`."""

    def __init__(
        self, configuration: Configuration, notifier: Notifier, log: Log, *,
        adopt: Callable[[Settings], None], warn: Callable[[Settings], list[str]], state: Callable[[], str],
        clock: Clock,
    ) -> None:  # fmt: skip
        """`warn` returns sentences about settings; `state` is the daemon's: starting, running or stopping."""
        self._settings = configuration.settings
        self._again = configuration.again
        self._environ = dict(configuration.environ)
        self._notifier = notifier
        self._log = log
        self._adopt = adopt
        self._warn = warn
        self._state = state
        self._clock = clock
        self._ended: float | None = None
        self._asked = asyncio.Event()
        self._turn = asyncio.Lock()

    def ask(self) -> None:
        """Reload within a second; any number of these meanwhile is one."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever asked, until cancelled."""
        while True:
            await self._asked.wait()
            while (early := self._early()) > 0:
                await self._clock.sleep(early)
            self._asked.clear()
            await self.reload()

    def _early(self) -> float:
        """Return for how long a signal has to wait: whoever asks at the socket is answered at once."""
        return 0.0 if self._ended is None else self._ended + _APART - self._clock.monotonic()

    async def reload(self, variables: Mapping[str, str] | None = None) -> Report:
        """Reload now; `variables`, those of JOBQD_*, take the place of the environment's if given. Never raises."""
        async with self._turn:
            state = self._state()
            if state == "stopping":
                return Report(problem="the daemon is stopping")
            if state == "running":
                self._notifier.reloading()
            try:
                return await self._reload(self._environ if variables is None else self._with(variables))
            finally:
                self._ended = self._clock.monotonic()
                if state == "running":
                    self._notifier.ready()

    def _with(self, variables: Mapping[str, str]) -> dict[str, str]:
        mine = {name: value for name, value in self._environ.items() if not name.startswith(_PREFIX)}
        return {**mine, **variables}

    async def _reload(self, environ: Mapping[str, str]) -> Report:
        try:
            # In a thread: files may lie on a disk that hangs.
            loaded = await asyncio.to_thread(self._again, environ)
            changes = list(differences(self._settings, loaded.settings))
            report = _report(changes)
        except ConfigError as error:
            self._log.error("daemon.reload_refused", problem=_one_line(str(error)))
            return Report(problem=str(error))
        except Exception as error:  # noqa: BLE001 - it is told
            # No thread is left to read in, or whatever it is: no reason to end a daemon that is well.
            problem = f"{type(error).__name__}: {error}"
            self._log.exception("daemon.reload_refused", problem=_one_line(problem))
            return Report(problem=problem)
        for warning in (*loaded.warnings, *self._warn(loaded.settings)):
            self._log.warning("config.warning", problem=warning)
        kept = {change.name[0]: change.old for change in changes if not change.live}
        self._settings, self._environ = loaded.settings.model_copy(update=kept), dict(environ)
        self._adopt(self._settings)
        self._log.info("daemon.reloaded", changes=", ".join(report.changed) or "nothing has changed")
        if report.restart:
            self._log.warning("daemon.restart_needed", changes=", ".join(report.restart))
        return report


def _report(changes: list[Change]) -> Report:
    live, others = ([str(change) for change in changes if change.live is kind] for kind in (True, False))
    return Report(live, others)
