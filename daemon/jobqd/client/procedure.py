"""Procedures: what a client does, apart from how it waits, so that Queue and SyncQueue share every decision.

A procedure is a generator. It yields steps, is sent their results, and has StoreError thrown into it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from jobqd.errors import StoreError
from jobqd.store.call import Argument, Call
from jobqd.store.link import Link, SyncLink

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class News:
    """Wait until a message about the job arrives, at most so many seconds; None: look for yourself."""

    seconds: float


Step = Call[Any] | Sequence[Sequence[Argument]] | Pause | News
Procedure = Generator[Step, Any, T]


class Ear(Protocol):
    """Where the news about one job come from."""

    async def next(self, timeout: float) -> str | None:
        """Return the next message, or None to say: look for yourself."""


async def run(procedure: Procedure[T], link: Link, sleep: Any, ear: Ear | None = None) -> T:
    """Carry a procedure out with asyncio.

    `sleep` is a coroutine function. Raises what the procedure raises.
    """

    async def perform(step: Step) -> Any:
        if isinstance(step, Call):
            return await link.run(step)
        if isinstance(step, Pause):
            return await sleep(step.seconds)
        if isinstance(step, News):
            return await sleep(step.seconds) if ear is None else await ear.next(step.seconds)
        return await link.pipeline(step)

    try:
        step = next(procedure)
        while True:
            try:
                reply = await perform(step)
            except StoreError as error:
                step = procedure.throw(error)
            else:
                step = procedure.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result


def run_sync(procedure: Procedure[T], link: SyncLink, sleep: Any = time.sleep) -> T:
    """Carry a procedure out in this thread.

    News are looked for after 50 ms, then ever more seldom, to 1 s.
    """
    poll = _POLL_FIRST

    def perform(step: Step) -> Any:
        nonlocal poll
        if isinstance(step, Call):
            return link.run(step)
        if isinstance(step, Pause):
            return sleep(step.seconds)
        if isinstance(step, News):
            sleep(min(step.seconds, poll))
            poll = min(_POLL_MAX, poll * 1.5)
            return None
        return link.pipeline(step)

    try:
        step = next(procedure)
        while True:
            try:
                reply = perform(step)
            except StoreError as error:
                step = procedure.throw(error)
            else:
                step = procedure.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result


_POLL_FIRST = 0.05
_POLL_MAX = 1.0
