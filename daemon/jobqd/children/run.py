"""A run in a process of its own, as the daemon sees it: orders go there, news come back, a death is judged."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobqd.children.edition import Edition
from jobqd.children.frames import HEADER, BrokenFrame, decode, encode, length
from jobqd.children.outcomes import read_outcome
from jobqd.children.process import ChildProcess, death
from jobqd.clock import Log
from jobqd.errors import LeaseLost, PayloadError, StoreError
from jobqd.guardian import Guardian
from jobqd.guardian.spawn import group_lives
from jobqd.runs import Crashed, Ending, Interrupted, Outcome, Run
from jobqd.units import format_duration

if TYPE_CHECKING:
    from jobqd.context import RunContext

GRACE = 3.0
"""Seconds between asking a child to end and killing it."""
START_PATIENCE = 60.0
"""Seconds for importing the application and entering its lifespan."""
_PROGRAMS_PATIENCE = 3.0
_POLL = 0.02
_LINGER = 1.0
_FRAME_ROOM = 2**20
_JOB_FIELDS = frozenset({"job_id", "job_type", "attempt", "fence"})


class ChildError(Exception):
    """The process did not come as far as the handler, so its job is not to blame; `printed` is what it said."""

    def __init__(self, message: str, printed: str = "") -> None:
        self.printed = printed
        super().__init__(message)


class Children:
    """Makes the children of one daemon: they import the application anew, from the same place."""

    def __init__(
        self, guardian: Guardian, edition: Edition, specs: Sequence[str], app_dir: Path, log: Log, *,
        max_result: int, log_level: str,
    ) -> None:  # fmt: skip
        self.edition = edition
        self._guardian = guardian
        self._log = log
        self._order = {
            "kind": "job", "handlers": list(specs), "app_dir": str(app_dir.absolute()), "max_result": max_result,
            "log_level": log_level, "locked": guardian.lock is not None,
        }  # fmt: skip
        self._max_result = max_result

    def outdated(self) -> bool:
        """Whether jobqd on disk is another one, whose children this daemon could not talk to; says so once."""
        found = self.edition.outdated()
        if found and not self.edition.told:
            self._log.warning("daemon.outdated")
        self.edition.told = found
        return found

    def child(self, run: Run, context: RunContext) -> ChildRun:
        """Return the child of a run, not started yet."""
        job = run.claimed
        order = {
            **self._order, "id": job.id, "fence": job.fence, "score": repr(job.score), "claimed_at": job.claimed_at,
            "fields": job.fields, "max_attempts": run.policy.max_attempts,
        }  # fmt: skip
        return ChildRun(run, context, self._guardian, self.edition, order, self._max_result)


class ChildRun:
    """One run in a child, from its start to the end of everything that it started."""

    def __init__(
        self, run: Run, context: RunContext, guardian: Guardian, edition: Edition, order: Mapping[str, Any],
        max_result: int,
    ) -> None:  # fmt: skip
        self._run = run
        self._context = context
        self._edition = edition
        self._guardian = guardian
        self._order = dict(order)
        self._max_result = max_result
        # Written as JSON in ASCII, a text becomes up to three times as long.
        self._frame_limit = 3 * max_result + _FRAME_ROOM
        self._loop = asyncio.get_running_loop()
        self._process: ChildProcess | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._saving: set[asyncio.Task[None]] = set()
        self._groups: set[int] = set()
        self._began = asyncio.Event()
        self._outcome: Outcome | None = None
        self._refusal = ""
        self._broken = ""
        self._asked = False
        self._ordered = False
        self._answered = False
        self._hung = False
        self._killed = False

    async def start(self) -> None:
        """Start the process; return when the handler begins. Raises ChildError if it does not come so far."""
        try:
            async with asyncio.timeout(START_PATIENCE):
                await self._connect()
                await self._begun()
        except TimeoutError:
            raise ChildError(f"its process was not ready within {START_PATIENCE:g} s", self._printed()) from None
        except OSError as error:
            raise ChildError(f"its process cannot be started: {error}") from error
        if not self._began.is_set():
            raise await self._false_start()

    async def outcome(self) -> Outcome:
        """Return how the run ended, once the process and all it started are gone."""
        status = await self._gone()
        if self._outcome is not None:
            return self._outcome
        if self._may_blame(status):
            return Crashed(self._how(status), self._printed())
        # What the ending leads to is for the executor to say.
        return Interrupted(str(self._run.ending or Ending.STOP))

    def _may_blame(self, status: int) -> bool:
        """Whether the handler caused this death, and not who ended its run or the whole service."""
        if self._run.ending in (Ending.CANCELLED, Ending.LOST) or (self._broken and self._edition.outdated()):
            return False
        if self._killed:
            return self._hung and self._run.ending is not Ending.STOP
        # A SIGTERM for every process of the service, while the daemon drains.
        return not (self._asked and status == -signal.SIGTERM)

    def ask_to_finish(self) -> None:
        """Set `job.stopping` there."""
        self._asked = True
        if self._ordered:
            self._tell({"kind": "stop"})

    def end(self, ending: Ending) -> None:
        """Cancel the handler there; kill the process and all it started after a grace, at once if it has not begun."""
        if not self._began.is_set():
            self._kill()
            return
        self._tell({"kind": "end", "ending": ending.value})
        self._loop.call_later(GRACE, self._kill_after_grace)

    def kill_all(self) -> None:
        """End the process and the programs of its job at once; from any thread."""
        # The programs first: as long as the process lives, nobody else can have their numbers.
        for group in tuple(self._groups):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._kill()

    async def close(self) -> None:
        """Let go of everything, whatever happened before; return when the process is gone."""
        self._kill()
        if self._process is not None:
            await self._gone()
        if self._listening is not None:
            self._listening.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _connect(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        with theirs:
            self._process = await ChildProcess.start(self._guardian, theirs, self._printed_line)
        if self._run.ending is not None:
            self._kill()
        self._listening = self._loop.create_task(self._listen(reader))
        # The first message comes after the guardian knows the process: before it, nothing of the application runs.
        self._tell(self._order)
        self._ordered = True
        if self._asked:
            self.ask_to_finish()

    async def _begun(self) -> None:
        """Return when the handler has begun, or never will."""
        assert self._listening is not None  # noqa: S101 - set by the caller before
        began = asyncio.ensure_future(self._began.wait())
        try:
            await asyncio.wait((began, self._listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            began.cancel()

    async def _false_start(self) -> ChildError:
        self._kill_unless_refused()
        status = await self._gone()
        how = self._refusal or self._broken or f"its process {death(status)} before its handler began"
        return ChildError(how, self._printed())

    def _kill_unless_refused(self) -> None:
        if not self._refusal:
            # Its own exit tells more than ours; it has closed its connection, so it is about to.
            self._loop.call_later(_LINGER, self._kill)

    async def _gone(self) -> int:
        """Return the exit status once the process, its group and the programs of its job are gone."""
        assert self._process is not None  # noqa: S101 - started by the caller before
        status = await self._process.wait()
        if self._listening is not None:
            # All it sent is in our end of the socket; only a process that left its group can hold the other end open.
            await asyncio.wait((self._listening,), timeout=_LINGER)
        deadline = self._loop.time() + _PROGRAMS_PATIENCE
        # Its own guardian ends them, the stubborn ones after a grace.
        while any(map(group_lives, self._groups)) and self._loop.time() < deadline:  # noqa: ASYNC110 - groups tell nobody
            await asyncio.sleep(_POLL)
        return status

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take messages until the connection ends; whatever cannot be understood ends the child."""
        try:
            while True:
                size = length(await reader.readexactly(HEADER.size), self._frame_limit)
                self._take(decode(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except BrokenFrame as error:
            self._broken = f"its process sent what is no message: {error}"
            self._kill()
        if self._outcome is None and not self._broken and self._began.is_set():
            # Its process is about to end, or has closed what it did not open.
            self._loop.call_later(_LINGER, self._kill)

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"kind": "progress", "percent": percent, "step": step, "eta": eta} if _is_progress(percent, step, eta):
                self._context.progress(float(percent), step, eta)
            case {"kind": "log", "level": int(level), "event": str(event), "fields": dict(fields)}:
                fields = {name: value for name, value in fields.items() if name not in _JOB_FIELDS}
                self._context.log.log(level, event, **fields)
            case {"kind": "checkpoint", "number": int(number), "text": str(text)}:
                task = self._loop.create_task(self._save(number, text))
                self._saving.add(task)
                task.add_done_callback(self._saving.discard)
            case {"kind": "program", "group": int(group), "lives": bool(lives)} if group > 1:
                (self._groups.add if lives else self._groups.discard)(group)
            case {"kind": "began"}:
                self._began.set()
            case {"kind": "ending"}:
                self._answered = True
            case {"kind": "refused", "error": str(error)}:
                self._refusal = error
            case {"kind": "outcome"}:
                self._outcome = read_outcome(message, self._max_result)
                if not self._answered:
                    # The handler ended by itself: whatever ends the run from now on comes too late.
                    self._run.outcome, self._run.returned = self._outcome, True
                # What is left is leaving the lifespan.
                self._loop.call_later(GRACE, self._kill)
            case _:
                raise BrokenFrame(f"{str(message.get('kind'))[:50]!r} with these values is not known")

    async def _save(self, number: int, text: str) -> None:
        answer: dict[str, Any] = {"kind": "saved", "number": number, "error": "", "problem": ""}
        try:
            await self._context.save_checkpoint(text)
        except (PayloadError, LeaseLost, StoreError) as error:
            fault = error.fault.value if isinstance(error, StoreError) else ""
            answer |= {"error": type(error).__name__, "problem": str(error), "fault": fault}
        self._tell(answer)

    def _tell(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(message))

    def _printed_line(self, line: str) -> None:
        self._context.log.info("job.printed", line=line)

    def _printed(self) -> str:
        return "" if self._process is None else self._process.printed

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _kill_after_grace(self) -> None:
        if self._process is None or self._process.ended:
            return
        self._killed = True
        if self._answered or self._outcome is not None:
            self._process.kill()
        else:
            self._hung = True
            self._process.dump_and_kill()

    def _how(self, status: int) -> str:
        if self._broken:
            return self._broken
        if self._hung:
            return f"{self._limit()}, and its process, which did not answer, was killed"
        return f"its process {death(status)}"

    def _limit(self) -> str:
        policy = self._run.policy
        if self._run.ending is Ending.STALLED:
            return f"no progress for {format_duration(policy.stall_timeout or 0)} (stall_timeout)"
        return f"timed out after {format_duration(policy.timeout)}"


def _is_progress(percent: object, step: object, eta_seconds: object) -> bool:
    numbers = (percent, 0 if eta_seconds is None else eta_seconds)
    return (step is None or isinstance(step, str)) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in numbers
    )
