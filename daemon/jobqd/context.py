"""What a run gets from the daemon: progress, checkpoints, programs, a log; and what all runs share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jobqd.clock import World
from jobqd.errors import LeaseLost, PayloadError, ProgramError
from jobqd.guardian import Guardian
from jobqd.handlers import Handlers
from jobqd.programs import Program, ProgramOptions
from jobqd.runs import Run
from jobqd.units import format_size

if TYPE_CHECKING:
    from jobqd.children import Children

_BREATHE_EVERY = 0.01


class Progress(Protocol):
    """Where the progress of runs goes: to Redis, or from a child process to the daemon."""

    def report(self, run: Run, percent: float, step: str | None, eta_seconds: float | None) -> None:
        """Take the latest progress of a run."""

    async def finish(self, run: Run) -> None:
        """Send the last of a run. Raises StoreError."""

    def forget(self, run: Run) -> None:
        """Drop what is kept for a run."""


class Checkpoints(Protocol):
    """Where checkpoints go."""

    async def save(self, run: Run, text: str) -> None:
        """Store a JSON text. Raises LeaseLost, StoreError."""


@dataclass(slots=True)
class Services:
    """What runs share: the application's handlers and state, where their news go, limits."""

    handlers: Handlers
    progress: Progress
    checkpoints: Checkpoints
    guardian: Guardian
    world: World
    threads: ThreadPoolExecutor
    max_result: int
    children: Children | None = None
    """Starts processes for runs that need one of their own; None inside such a process."""
    state: Any = None
    """What the application's lifespan yielded."""


class RunContext:
    """What a running job may ask of the daemon; made only for handlers that take their job."""

    __slots__ = ("_breath", "_closed", "_programs", "_run", "_services", "lease_lost", "on_progress", "saving")

    def __init__(self, run: Run, services: Services) -> None:
        self._run = run
        self._services = services
        self._programs: list[Program] = []
        self._closed = False
        self._breath = services.world.clock.monotonic()
        self.lease_lost = False
        """Whether Redis refused a checkpoint of this run, for the job is not its own any more."""
        self.on_progress: Callable[[], None] | None = None
        self.saving = 0
        """How many checkpoints wait for Redis: a run that waits for it has not stalled."""

    @property
    def log(self) -> Any:
        """A logger with the job's fields bound."""
        claimed = self._run.claimed
        return self._services.world.log.bind(
            job_id=claimed.id, job_type=claimed.type, attempt=claimed.attempts + 1, fence=claimed.fence
        )

    @property
    def max_attempts(self) -> int:
        """How many charged runs this job may have."""
        return self._run.policy.max_attempts

    @property
    def state(self) -> Any:
        """What the application's lifespan yielded."""
        return self._services.state

    @property
    def ended(self) -> str | None:
        """Why the daemon ended this run, None while it may go on."""
        return None if self._run.ending is None else str(self._run.ending)

    def progress(self, percent: float, step: str | None, eta_seconds: float | None) -> bool:
        """Take the latest progress; true when the caller has held the loop for a while."""
        if self._closed:
            return False  # a task that outlived its run
        self._services.progress.report(self._run, percent, step, eta_seconds)
        if self.on_progress is not None:
            self.on_progress()
        now = self._services.world.clock.monotonic()
        if now - self._breath < _BREATHE_EVERY:
            return False
        self._breath = now
        return True

    async def save_checkpoint(self, text: str) -> None:
        """Store a JSON text. Raises PayloadError if it is too large, LeaseLost if the job is not ours any more."""
        limit = self._services.max_result
        if len(text) > limit or len(text.encode("utf-8", "replace")) > limit:
            raise PayloadError(
                f"the checkpoint is larger than max_result ({format_size(limit)}): keep large data elsewhere and save "
                "where it is"
            )
        # The server may have executed a call whose task is cancelled, so it runs in a task of its own.
        saving = asyncio.ensure_future(self._services.checkpoints.save(self._run, text))
        saving.add_done_callback(self._saved)
        self.saving += 1
        try:
            await asyncio.shield(saving)
        finally:
            self.saving -= 1

    def _saved(self, saving: asyncio.Future[None]) -> None:
        """Take note of an error, also of one that nobody is left to hear: the run was ended while it waited."""
        if not saving.cancelled() and isinstance(saving.exception(), LeaseLost):
            self.lease_lost = True

    def program(self, argv: tuple[str, ...], options: ProgramOptions) -> Program:
        """Return an external program that ends with this run."""
        if self._closed:
            raise ProgramError(f"{argv[0]} is not started: the run that wants it has ended")
        program = Program(argv, options, self._services.guardian)
        self._programs.append(program)
        return program

    async def close(self) -> None:
        """End every program of this run: the job may be handed on only after that."""
        self._closed = True
        await asyncio.gather(*(program.stop() for program in self._programs))

    async def kill(self) -> None:
        """End every program at once, whatever time it was given."""
        for program in self._programs:
            program.kill()
        await self.close()
