"""Subscriptions: one connection that any number of waiters share, made again when it breaks.

Redis forgets what it published while nobody listened, so a message is a hint and the job's hash is the truth:
each subscription is told when something may have been missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio.connection import AbstractConnection

from jobqd.store.connect import REPLY_TIMEOUT, Target
from jobqd.store.faults import RAISED
from jobqd.store.link import pack
from jobqd.store.wire import send

_KEEPALIVE = 15.0
"""Seconds of silence after which the server is asked whether it is there: a dead peer says nothing."""
_LINGER = 10.0
"""Seconds for which an unused connection is kept: waiters often come one after the other."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_WAITING_MAX = 1000


class Subscription:
    """What arrives on one channel. Close it when nobody waits any more."""

    def __init__(self, channel: str, close: Callable[[Subscription], None]) -> None:
        self.channel = channel
        self._close = close
        self._waiting: deque[str | None] = deque()
        self._arrived = asyncio.Event()

    async def next(self, timeout: float) -> str | None:
        """Return the next message, or None to say: look for yourself, something may have been missed.

        None comes once the subscription stands, again after each reconnect, and after `timeout` seconds of
        silence.
        """
        if not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(max(0.0, timeout)):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft()

    def put(self, message: str | None) -> None:
        """Add a message; more than a waiter takes in time collapse into one None."""
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.clear()
            message = None
        self._waiting.append(message)
        self._arrived.set()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._close(self)


class Listener:
    """The shared connection. It exists only while there are subscriptions, and a little longer."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._channels: dict[str, set[Subscription]] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._asked: set[str] = set()

    @property
    def channels(self) -> frozenset[str]:
        """The channels that somebody listens to."""
        return frozenset(self._channels)

    def subscribe(self, channel: str) -> Subscription:
        """Listen to a channel from now on; returns at once, the first None tells when Redis has agreed."""
        subscription = Subscription(channel, self._leave)
        if channel in self._asked:
            # Redis confirms a channel once; whether that is past or to come, this waiter must look for
            # itself.
            subscription.put(None)
        self._channels.setdefault(channel, set()).add(subscription)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="jobqd-listener")
        return subscription

    async def close(self) -> None:
        """End the connection and its task; whoever still waits is told nothing more."""
        task, self._task = self._task, None
        self._channels.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _leave(self, subscription: Subscription) -> None:
        others = self._channels.get(subscription.channel)
        if others is None:
            return
        others.discard(subscription)
        if not others:
            del self._channels[subscription.channel]
            self._changed.set()

    async def _listen(self) -> None:
        failures = 0
        while self._channels:
            try:
                await self._session()
            except RAISED:  # OSError, which TimeoutError is, among them
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
            else:
                failures = 0

    async def _session(self) -> None:
        """Hold one connection until nobody listens or it breaks; raises what broke it."""
        connection = await self._target.connect()
        try:
            await self._serve(connection)
        finally:
            self._asked = set()
            await connection.disconnect(nowait=True)

    async def _serve(self, connection: AbstractConnection) -> None:
        reading: asyncio.Task[Any] | None = None
        changing: asyncio.Task[Any] | None = None
        try:
            reading = asyncio.create_task(self._read(connection))
            while True:
                self._changed.clear()
                await self._ask(connection)
                changing = asyncio.create_task(self._changed.wait())
                patience = None if self._channels else _LINGER
                await asyncio.wait((reading, changing), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                if not changing.done():
                    return
        finally:
            tasks = [task for task in (reading, changing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, connection: AbstractConnection) -> None:
        """Make Redis's list of channels equal to ours."""
        wanted = set(self._channels)
        await self._send(connection, "UNSUBSCRIBE", self._asked - wanted)
        await self._send(connection, "SUBSCRIBE", wanted - self._asked)
        self._asked = wanted

    async def _send(self, connection: AbstractConnection, verb: str, channels: Iterable[str]) -> None:
        names = sorted(channels)
        if names:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await send(connection, [pack((verb, *names))])

    async def _read(self, connection: AbstractConnection) -> None:
        asked_for_life = False
        while True:
            try:
                async with asyncio.timeout(REPLY_TIMEOUT if asked_for_life else _KEEPALIVE):
                    reply = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                if asked_for_life:
                    raise
                asked_for_life = True
                await send(connection, [pack(("PING",))])
                continue
            asked_for_life = False
            if isinstance(reply, list) and len(reply) == 3:
                self._deliver(*reply)

    def _deliver(self, kind: Any, channel: Any, content: Any) -> None:
        if kind not in ("message", "subscribe"):
            return
        message = content if kind == "message" and isinstance(content, str) else None
        for subscription in tuple(self._channels.get(channel, ())):
            subscription.put(message)
