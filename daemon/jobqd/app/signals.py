"""What each signal asks of the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

_LATER = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Orders:
    """What signals ask of a daemon beside stopping. `rest` gets whether to be quiet."""

    hang_up: Callable[[], None]
    """The terminal is gone: to stop, but without hurry however often it is said."""
    reload: Callable[[], None]
    rest: Callable[[bool], None]


def hold_back() -> None:
    """Do nothing on the signals of `catch` until then: they must not end a process that has not come so far."""
    for number in _LATER:
        if number != signal.SIGHUP or not has_terminal():
            # Not SIG_IGN, which programs that are started meanwhile would inherit for good.
            signal.signal(number, _nothing)


def catch_stops(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` for each SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def catch(loop: asyncio.AbstractEventLoop, orders: Orders) -> None:
    """Carry out the orders when signals come.

    SIGUSR1: be quiet, SIGUSR2: claim again. SIGHUP: reload; but a daemon with a controlling terminal is told by it that
    the terminal was closed, so it stops, unless it is to outlive that (nohup).
    """
    loop.add_signal_handler(signal.SIGUSR1, orders.rest, True)
    loop.add_signal_handler(signal.SIGUSR2, orders.rest, False)
    if not has_terminal():
        loop.add_signal_handler(signal.SIGHUP, orders.reload)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, orders.hang_up)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def has_terminal() -> bool:
    """Whether this process has a controlling terminal: only then /dev/tty can be opened (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
