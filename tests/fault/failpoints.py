"""Death at a named moment: the application's module of handlers arms one failpoint in the daemon that imports it."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

POINTS = {
    "claimed": "before jobqd.pool:Pool.start",
    "handler ended": "before jobqd.store.ledger:Ledger.settle",
    "settled": "after jobqd.store.ledger:Ledger.settle",
    "predecessor read": "before jobqd.duties.recover:Recoverer.take_back",
    "predecessor's jobs listed": "before jobqd.duties.recover:Recoverer._settle",
    "predecessor's jobs settled": "after jobqd.duties.recover:Recoverer._settle",
    "predecessor forgotten": "after jobqd.lockfile:InstanceLock.record",
}
"""Each failpoint, and the call before or after which the daemon is killed."""


def set_failpoint(directory: Path, name: str) -> None:
    """Let the next daemon of this application die, once, at a failpoint of POINTS."""
    (directory / "failpoint").write_text(POINTS[name])


def arm(directory: Path) -> None:
    """Called inside the daemon, before any of its parts is made: put the failpoint that was set in place."""
    flag = directory / "failpoint"
    if not flag.exists():
        return
    moment, _, place = flag.read_text().partition(" ")
    module, _, name = place.partition(":")
    owner_name, _, method = name.partition(".")
    owner = getattr(import_module(module), owner_name)
    setattr(owner, method, _deadly(getattr(owner, method), moment, flag))


def _deadly(call: Callable[..., Any], moment: str, flag: Path) -> Callable[..., Any]:
    def die() -> NoReturn:
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("alive after SIGKILL")

    def before(*_: Any, **__: Any) -> None:
        die()

    def after(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)
        die()

    async def after_await(*args: Any, **kwargs: Any) -> None:
        await call(*args, **kwargs)
        die()

    if moment == "before":
        return before
    return after_await if inspect.iscoroutinefunction(call) else after
