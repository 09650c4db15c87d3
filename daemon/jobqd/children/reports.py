"""What a run in a child reports goes over the wire: progress, checkpoints, log lines, the programs it started."""

from __future__ import annotations

import asyncio
import contextlib
import math
from itertools import islice
from typing import Any

from jobqd.children.wire import Wire
from jobqd.errors import LeaseLost, PayloadError, StoreError, StoreFault
from jobqd.guardian import Guardian
from jobqd.logs.record import Record
from jobqd.logs.text import shown
from jobqd.runs import Run

_PROGRESS_EVERY = 0.05
_STEP_LIMIT = 1_000
_TEXT_LIMIT = 32_768
_FIELDS_LIMIT = 50
_NAME_LIMIT = 100
_RECORD_LIMIT = 65_536
"""Most characters of one record, which may take twelve bytes each: a longer frame would end the process."""


class WireProgress:
    """Sends the latest progress, at most twenty times a second; the daemon thins it out further."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._news: dict[str, Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def report(self, run: Run, percent: float, step: str | None, eta_seconds: float | None) -> None:
        """Take the latest progress of the run."""
        step = None if step is None else str(step)[:_STEP_LIMIT]
        self._news = {"kind": "progress", "percent": percent, "step": step, "eta": eta_seconds}
        if self._timer is None:
            self._send()
            self._timer = self._loop.call_later(_PROGRESS_EVERY, self._due)

    async def finish(self, run: Run) -> None:
        """Send the last progress."""
        self._send()

    def forget(self, run: Run) -> None:
        """Drop what was not sent."""
        self._news = None

    def _due(self) -> None:
        self._timer = None
        self._send()

    def _send(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            self._wire.send(news)


class WireCheckpoints:
    """Sends checkpoints, and waits until the daemon says what became of each."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def save(self, run: Run, text: str) -> None:
        """Store a JSON text. Raises what the daemon's own saving raised: PayloadError, LeaseLost or StoreError."""
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        self._wire.send({"kind": "checkpoint", "number": self._number, "text": text})
        message = await answer
        problem = message["problem"]
        match message["error"]:
            case "":
                return
            case "LeaseLost":
                raise LeaseLost(problem)
            case "PayloadError":
                raise PayloadError(problem)
            case _:
                raise StoreError(StoreFault(message["fault"]), problem)

    def answered(self, message: dict[str, Any]) -> None:
        """Take the daemon's answer."""
        answer = self._waiting.pop(message["number"], None)
        if answer is not None and not answer.done():
            answer.set_result(message)


class WireSink:
    """The log of a child: each record goes to the daemon, which writes it with the job's fields."""

    wants_caller = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.dropped = 0
        """Records that could not be sent."""

    def write(self, record: Record) -> None:
        """Send a record; its values as JSON where they are, as texts where not."""
        event, trace = record.event[:_TEXT_LIMIT], record.exception[:_TEXT_LIMIT]
        left = _RECORD_LIMIT - len(event) - len(trace)
        fields: dict[str, Any] = {}
        for name, value in islice(record.fields.items(), _FIELDS_LIMIT):
            kept = fields[str(name)[:_NAME_LIMIT]] = _value(value, max(_NAME_LIMIT, min(_TEXT_LIMIT, left)))
            left -= len(kept) if isinstance(kept, str) else 0
        if trace:
            fields["traceback"] = trace
        try:
            self._wire.send({"kind": "log", "level": record.level, "event": event, "fields": fields})
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """Do nothing: what was written is sent."""


def _value(value: Any, limit: int) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return shown(value, limit)


class TellingGuardian(Guardian):
    """A guardian of the child's own, which tells the daemon what it guards: the job waits for the end of all of it."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire, lock: int | None) -> None:
        super().__init__(lock)
        self._wire = wire

    def protect(self, pgid: int) -> None:
        """Let this process group end when the child does. Raises as the guardian's own."""
        super().protect(pgid)
        self._report(pgid, lives=True)

    def release(self, pgid: int) -> None:
        """Forget a process group."""
        super().release(pgid)
        self._report(pgid, lives=False)

    def _report(self, pgid: int, *, lives: bool) -> None:
        with contextlib.suppress(OSError):  # the daemon is gone, and so is whoever would wait
            self._wire.send({"kind": "program", "group": pgid, "lives": lives})
