"""Hearing of changes of the ready set without polling, by CLIENT TRACKING redirected to a subscribed connection.

The claim connection reads `ready` at the end of each claim; the server then tells of its next change, whoever makes it,
once. Both connections are made and dropped together: a redirect to a dead connection is silent in RESP2.
Source: https://redis.io/docs/latest/develop/reference/client-side-caching/ (two connections mode).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection

from jobqd.errors import StoreError, StoreFault
from jobqd.store.call import Call
from jobqd.store.connect import REPLY_TIMEOUT, Target
from jobqd.store.faults import RAISED, refusal
from jobqd.store.link import Link, pack
from jobqd.store.wire import peer, send

T = TypeVar("T")

_INVALIDATE = "__redis__:invalidate"


class TrackedLink(Link):
    """A link whose reads are tracked, with a subscriber that hears of changes and of control messages."""

    def __init__(
        self,
        target: Target,
        ready: str,
        control: str,
        *,
        on_change: Callable[[], None],
        on_control: Callable[[str], None],
    ) -> None:
        super().__init__(target)
        self._ready = ready
        self._control = control
        self._on_change = on_change
        self._on_control = on_control
        self._listener: asyncio.Task[None] | None = None
        self._subscriber: AbstractConnection | None = None
        self._heard = asyncio.Event()
        self.refused: str | None = None
        """Why the server refuses tracking; None while it works or was not tried."""

    async def run(self, call: Call[T]) -> T:
        """Run a script, on new connections if the subscriber has died. Raises StoreError."""
        if self._listener is not None and self._listener.done():
            await self.close()
        return await super().run(call)

    async def healthy(self) -> bool:
        """Whether the server is heard, and still tracks for us unless it refuses to.

        Raises StoreError if it does not answer.
        """
        subscriber = self._subscriber
        if subscriber is None or self._listener is None or self._listener.done():
            return False
        return (self.refused is not None or await self._tracks()) and await self._hears(subscriber)

    async def _tracks(self) -> bool:
        info = await self.command("CLIENT", "TRACKINGINFO")
        flags = dict(zip(info[::2], info[1::2], strict=False)).get("flags", [])
        return "on" in flags and "broken_redirect" not in flags

    async def _hears(self, subscriber: AbstractConnection) -> bool:
        """Whether the subscriber gets an answer: a connection that died without a sign is as silent as an idle one.

        One that has been replaced is not asked: nothing is known against what took its place.
        """
        if self._subscriber is not subscriber:
            return True
        if not subscriber.is_connected:
            # redis-py would connect it again to send, and nobody would read from it, or close it.
            return False
        self._heard.clear()
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await send(subscriber, [pack(("PING",))])
                await self._heard.wait()
        except RAISED:
            return self._subscriber is not subscriber
        return True

    async def _connect(self) -> AbstractConnection:
        await self._drop()
        subscriber = self._subscriber = await self._target.connect()
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                client_id = await self._subscribe(subscriber)
        except TimeoutError:
            await self._drop()
            raise StoreError(StoreFault.DOWN, f"no reply from Redis within {REPLY_TIMEOUT:g} s") from None
        except BaseException:
            await self._drop()
            raise
        connection = await self._connect_beside(subscriber)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await self._track(connection, client_id)
        except TimeoutError:
            await self._drop()
            raise StoreError(StoreFault.DOWN, f"no reply from Redis within {REPLY_TIMEOUT:g} s") from None
        self._listener = asyncio.create_task(self._listen(subscriber))
        return connection

    async def _connect_beside(self, subscriber: AbstractConnection) -> AbstractConnection:
        """Connect to the subscriber's own server: ids of clients, which a redirect names, mean nothing on another."""
        connection = await super()._connect()
        if peer(connection) != peer(subscriber):
            await self._drop()
            raise StoreError(StoreFault.READONLY, "the master changed between two connections")
        return connection

    async def _subscribe(self, subscriber: AbstractConnection) -> Any:
        """Subscribe to what the server allows; returns the connection's id for the redirect, None if refused."""
        self.refused = None
        try:
            client_id = await _ask(subscriber, "CLIENT", "ID")
            await _ask(subscriber, "SUBSCRIBE", _INVALIDATE)
        except RAISED as error:
            self._refuse(error)
            client_id = None
        try:
            await _ask(subscriber, "SUBSCRIBE", self._control)
        except RAISED as error:
            self._refuse(error)
        return client_id

    async def _track(self, connection: AbstractConnection, client_id: Any) -> None:
        if client_id is None:
            return
        try:
            await _ask(connection, "CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "NOLOOP")
        except RAISED as error:
            if not refusal(error):
                await self._drop()
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Take note of what the server refuses; a connection that failed refuses nothing, so that is raised."""
        if not refusal(error):
            raise error
        self.refused = str(error)

    async def _listen(self, subscriber: AbstractConnection) -> None:
        """Pass messages on until the connection ends; the next claim then makes both anew."""
        try:
            while True:
                message = await subscriber.read_response()
                self._heard.set()
                if not isinstance(message, list) or len(message) < 3 or message[0] != "message":
                    continue
                if message[1] == _INVALIDATE:
                    # The script's other reads are tracked too; None: everything was flushed.
                    if message[2] is None or self._ready in message[2]:
                        self._on_change()
                else:
                    self._on_control(str(message[2]))
        except RAISED:
            # Whatever was missed meanwhile is found by the claim that this provokes.
            self._on_change()

    async def _drop(self) -> None:
        await super()._drop()
        listener, self._listener = self._listener, None
        subscriber, self._subscriber = self._subscriber, None
        if listener is not None:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
        if subscriber is not None:
            await subscriber.disconnect(nowait=True)


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await send(connection, [pack(command)])
    return await connection.read_response()
