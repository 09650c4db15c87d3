"""A job as the daemon claimed it, and as its handler sees it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from jobqd.errors import PayloadError, Stopped
from jobqd.programs import Program, ProgramOptions, SyncProgram

T = TypeVar("T")
Report = tuple[float, str | None, float | None]
"""Progress: percent, step, and how many seconds are left."""
_UNREAD = object()

_INTEGER = re.compile(r"\d{1,15}", re.ASCII)
_WHOLE_SECONDS = re.compile(r"\d{1,11}", re.ASCII)
DAEMON_FIELDS = frozenset({
    "attempts", "checkpoint", "crashes", "created_at", "error", "error_type", "eta_seconds", "fence", "finished_at",
    "held", "interruptions", "max_attempts", "payload", "priority", "progress", "result", "started_at", "status",
    "step", "timeout", "traceback", "type", "worker",
})  # fmt: skip
"""Hash fields that belong to the daemon; it also owns every name that begins with `_`."""


def integer(text: str | None) -> int:
    """Return a hash field as an integer; anything but 1 to 15 digits counts as 0, as in the scripts."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else 0


class Claimed:
    """One leased job as Redis gave it: nothing in `fields` is trusted.

    `score` is the ready score it was claimed at; `claimed_at` is Redis's clock, in Unix seconds. `unfit` says why it
    is not to run at all, empty for all but a broken producer's.
    """

    __slots__ = ("claimed_at", "fence", "fields", "id", "score", "type", "unfit")

    def __init__(
        self, job_id: str, fence: int, score: float, claimed_at: float, fields: dict[str, str], unfit: str = ""
    ) -> None:
        self.id = job_id
        self.fence = fence
        self.score = score
        self.claimed_at = claimed_at
        self.fields = fields
        self.type = fields.get("type", "")
        self.unfit = unfit

    @property
    def attempts(self) -> int:
        """Runs charged so far, this one not included."""
        return integer(self.fields.get("attempts"))

    @property
    def crashes(self) -> int:
        """Leases of this job that ran out so far."""
        return integer(self.fields.get("crashes"))

    @property
    def interruptions(self) -> int:
        """Runs of this job that we ended so far."""
        return integer(self.fields.get("interruptions"))

    def waited(self, *, roughly: bool = False) -> float | None:
        """Seconds between the moment this job was ready and its claim; None where nothing tells.

        The fraction of the score of our clients and of promoted jobs is Unix time / 1e10; a raw producer's plain
        score says nothing, so `created_at` stands in for the first run. In whole seconds it tells only `roughly`: an
        idle daemon would seem to take up to a second.
        """
        ready_at = (self.score - math.floor(self.score)) * 1e10 if math.isfinite(self.score) else 0.0
        if not self.claimed_at - 1e8 < ready_at < self.claimed_at + 60:
            if self.attempts or self.crashes or self.interruptions:
                return None
            if not roughly and _WHOLE_SECONDS.fullmatch(self.fields.get("created_at", "")):
                return None
            ready_at = created_at(self.fields)
            if not self.claimed_at - 1e8 < ready_at < self.claimed_at + 60:
                return None
        return max(0.0, self.claimed_at - ready_at)


def created_at(fields: Mapping[str, str]) -> float:
    """Return `created_at` in Unix seconds, 0 if absent or unreadable; above 1e11 it is JavaScript milliseconds."""
    try:
        value = float(fields.get("created_at", "0"))
    except ValueError:
        return 0.0
    if not math.isfinite(value):
        return 0.0
    return value / 1000 if value > 1e11 else value


class RunPort(Protocol):
    """What a running job may ask of the daemon."""

    @property
    def log(self) -> Any:
        """A structlog logger with the job's fields bound."""

    @property
    def max_attempts(self) -> int:
        """How many charged runs this job may have."""

    @property
    def state(self) -> Any:
        """What the application's lifespan yielded."""

    @property
    def ended(self) -> str | None:
        """Why the daemon ended this run, or None while it may go on."""

    def progress(self, percent: float, step: str | None, eta_seconds: float | None) -> bool:
        """Take the latest progress; true when the caller should let the event loop breathe."""

    async def save_checkpoint(self, text: str) -> None:
        """Store a JSON text; return when Redis has it."""

    def program(self, argv: tuple[str, ...], options: ProgramOptions) -> Program:
        """An external program that ends with this run."""


class _JobBase:
    """What both kinds of job share: the facts of this run."""

    __slots__ = ("_checkpoint", "_claimed", "_port")

    def __init__(self, claimed: Claimed, port: RunPort) -> None:
        self._claimed = claimed
        self._port = port
        self._checkpoint: Any = _UNREAD

    @property
    def id(self) -> str:
        """The job's id."""
        return self._claimed.id

    @property
    def type(self) -> str:
        """The job's type."""
        return self._claimed.type

    @property
    def attempt(self) -> int:
        """Which attempt this run is; 1 is the first."""
        return self._claimed.attempts + 1

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has, this one included."""
        return self._port.max_attempts

    @property
    def fence(self) -> int:
        """A number that grows with every run of this job: pass it downstream to refuse late writes."""
        return self._claimed.fence

    @property
    def fields(self) -> Mapping[str, str]:
        """The job's hash as it was claimed, all values texts; never trusted, never written back."""
        return MappingProxyType(self._claimed.fields)

    @property
    def log(self) -> Any:
        """A structlog logger that names this job, its type, attempt and fence in every line."""
        return self._port.log

    @property
    def state(self) -> Any:
        """What the application's `@handlers.lifespan` yielded, or None."""
        return self._port.state

    @property
    def checkpoint(self) -> Any:
        """What the last run saved with `save_checkpoint`, or None."""
        if self._checkpoint is _UNREAD:
            try:
                self._checkpoint = json.loads(self._claimed.fields.get("checkpoint", "null"))
            except (ValueError, RecursionError):
                self._checkpoint = None
        return self._checkpoint


class Job(_JobBase):
    """One run of a job, as an `async def` handler sees it."""

    __slots__ = ("stopping",)

    def __init__(self, claimed: Claimed, port: RunPort, stopping: asyncio.Event) -> None:
        super().__init__(claimed, port)
        self.stopping = stopping
        """Set when the daemon drains: finish soon, or save a checkpoint and return or raise."""

    async def progress(self, percent: float, step: str | None = None, eta_seconds: float | None = None) -> None:
        """Report progress in percent (0 to 100); cheap, sent at most ten times a second, the last always.

        Without `eta_seconds` the remaining time is estimated from the progress so far. Raises ValueError for a
        number that is not finite.
        """
        if self._port.progress(*_numbers(percent, step, eta_seconds)):
            await asyncio.sleep(0)

    async def save_checkpoint(self, data: Any) -> None:
        """Save a JSON value for the next run of this job, if there is one; returns when Redis has it.

        Raises PayloadError if it is not JSON or too large, LeaseLost if this run no longer owns the job.
        """
        await self._port.save_checkpoint(_checkpoint_text(data))
        self._checkpoint = data

    def exec(self, *argv: str, **options: Any) -> Program:
        """Run an external program in its own process group, killed as a tree when this run ends.

        Iterate over it for its output line by line, or await it for all of it at once. Options are those of
        `jobqd.programs.ProgramOptions`. Raises ProgramError if it cannot start or ends with an error.
        """
        return self._port.program(tuple(map(str, argv)), ProgramOptions(**options))


class SyncJob(_JobBase):
    """One run of a job, as a plain `def` handler in a thread sees it: the same names, plain calls."""

    __slots__ = ("_lock", "_loop", "_news", "stopping")

    def __init__(self, claimed: Claimed, port: RunPort, stopping: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(claimed, port)
        self._loop = loop
        self._lock = threading.Lock()
        self._news: Report | None = None
        self.stopping = stopping
        """A `threading.Event`, set when the daemon drains or has ended this run: finish soon."""

    def progress(self, percent: float, step: str | None = None, eta_seconds: float | None = None) -> None:
        """Report progress, as `Job.progress`. Raises Stopped once the daemon has ended this run."""
        self._check()
        news = _numbers(percent, step, eta_seconds)
        with self._lock:
            waiting, self._news = self._news is not None, news
        if not waiting:
            # One call for all reports that come until the loop takes the last of them: nothing holds a thread back
            # that reports faster than the loop can listen, and the loop's other work waits behind its calls.
            self._loop.call_soon_threadsafe(self._take_news)

    def save_checkpoint(self, data: Any) -> None:
        """Save a JSON value for the next run, as `Job.save_checkpoint`. Raises Stopped as `progress` does."""
        self._check()
        self._wait(self._port.save_checkpoint(_checkpoint_text(data)))
        self._checkpoint = data

    def exec(self, *argv: str, **options: Any) -> SyncProgram:
        """Run an external program, as `Job.exec`: iterate over its lines, or call `.run()` for all of them."""
        self._check()
        program = self._wait(self._start(tuple(map(str, argv)), ProgramOptions(**options)))
        return SyncProgram(program, self._loop)

    def _take_news(self) -> None:
        """Hand on the latest report; on the loop."""
        with self._lock:
            news, self._news = self._news, None
        if news is not None:
            self._port.progress(*news)

    async def _start(self, argv: tuple[str, ...], options: ProgramOptions) -> Program:
        return self._port.program(argv, options)

    def _check(self) -> None:
        if self._port.ended is not None:
            raise Stopped(f"the daemon ended this run: {self._port.ended}")

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _numbers(percent: float, step: str | None, eta_seconds: float | None) -> Report:
    """Check what was reported where the handler can see the error."""
    percent = float(percent)
    eta_seconds = None if eta_seconds is None else float(eta_seconds)
    if not math.isfinite(percent) or (eta_seconds is not None and not math.isfinite(eta_seconds)):
        raise ValueError(f"progress({percent}, eta_seconds={eta_seconds}): give finite numbers")
    return percent, None if step is None else str(step), eta_seconds


def _checkpoint_text(data: Any) -> str:
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"the checkpoint is not JSON: {error}") from None
