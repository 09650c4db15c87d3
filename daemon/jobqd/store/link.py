"""One connection to Redis that is made when needed, used by one call at a time, and dropped when out of step."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import hiredis
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection as SyncConnection

from jobqd.errors import StoreError, StoreFault
from jobqd.store.call import Argument, Call, explain
from jobqd.store.connect import REPLY_TIMEOUT, Target
from jobqd.store.faults import RAISED, elsewhere, late, no_script, store_error, unusable
from jobqd.store.wire import peer, send

T = TypeVar("T")


def pack(command: Sequence[Argument]) -> bytes:
    """Return a command in Redis's wire format; texts keep the bytes they were read with."""
    try:
        packed: bytes = hiredis.pack_command(cast("Any", tuple(command)))
    except UnicodeEncodeError:
        packed = hiredis.pack_command(cast("Any", tuple(_bytes(part) for part in command)))
    return packed


def _bytes(part: Argument) -> Argument:
    if not isinstance(part, str):
        return part
    try:
        return part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Surrogates that stand for no byte, in the text of an application's error: better shown than fatal.
        return part.encode("utf-8", "backslashreplace")


def _timed_out() -> StoreError:
    return StoreError(StoreFault.DOWN, f"no reply from Redis within {REPLY_TIMEOUT:g} s")


class _Hung:
    """When a server last did not answer in time. Whoever waited for a turn meanwhile need not wait as long again.

    Without it a hundred callers of one connection would wait five seconds each, one after the other.
    """

    def __init__(self) -> None:
        self._at = -math.inf
        self._problem = ""

    def note(self, error: StoreError) -> StoreError:
        """Take note of a call that was not answered in time; returns its error."""
        self._at, self._problem = time.monotonic(), str(error)
        return error

    def check(self, asked: float) -> None:
        """Raise StoreError for a call that waits since `asked` (monotonic) and could have failed with the other."""
        if self._at > asked:
            raise StoreError(StoreFault.DOWN, self._problem)


class Link:
    """An asyncio connection. Calls wait for each other; a failure closes it and the next call connects again.

    Never cancel a task that waits here: the server may have executed what was sent. Stop by a flag, or shield.
    """

    def __init__(self, target: Target, name: str = "jobqd") -> None:
        self._target = target
        self._name = name
        self._lock = asyncio.Lock()
        self._hung = _Hung()
        self._connection: AsyncConnection | None = None
        self.generation = 0
        """Raised by every new connection: what was set up on an older one is gone."""
        self.on_reply: Callable[[str, float], None] | None = None
        """Told of each script that was answered: its name, and the seconds from sending to the reply."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has not failed yet."""
        return self._connection is not None

    @property
    def server(self) -> str:
        """The address of the server at the other end, empty while there is no connection."""
        return "" if self._connection is None else peer(self._connection)

    async def run(self, call: Call[T]) -> T:
        """Run a script and return its parsed reply. Raises StoreError."""
        asked = time.monotonic()
        async with self._lock:
            self._hung.check(asked)
            sent = time.perf_counter()
            try:
                reply = await self._execute(call)
            except StoreError as error:
                raise await self._explained(error, call) from None
            if self.on_reply is not None:
                self.on_reply(call.script.name, time.perf_counter() - sent)
        return call.parse(reply)

    async def _execute(self, call: Call[Any]) -> Any:
        try:
            return await self._exchange(call.by_sha())
        except RAISED as error:
            if not no_script(error):
                raise await self._failed(error) from None
        return await self._answer(call.by_source())

    async def _explained(self, error: StoreError, call: Call[Any]) -> StoreError:
        inquiry, reply = explain(error, call), None
        try:
            while True:
                command = inquiry.send(reply)
                try:
                    reply = await self._answer(command)
                except StoreError:
                    reply = None
        except StopIteration as end:
            return cast("StoreError", end.value)

    async def command(self, *command: Argument) -> Any:
        """Run one command and return its reply. Raises StoreError."""
        asked = time.monotonic()
        async with self._lock:
            self._hung.check(asked)
            return await self._answer(command)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send several commands at once, without a transaction, and return their replies. Raises StoreError."""
        asked = time.monotonic()
        async with self._lock:
            self._hung.check(asked)
            try:
                return await self._exchange_all(commands)
            except RAISED as error:
                # Replies of later commands may be on their way: this connection is out of step.
                await self._drop()
                raise self._told(error) from None

    async def close(self, generation: int | None = None) -> None:
        """Close the connection, of any generation or only of this one; a later call opens a new one."""
        async with self._lock:
            if generation in (None, self.generation):
                await self._drop()

    async def _answer(self, command: Sequence[Argument]) -> Any:
        try:
            return await self._exchange(command)
        except RAISED as error:
            raise await self._failed(error) from None

    async def _exchange(self, command: Sequence[Argument]) -> Any:
        connection = self._connection or await self._connect()
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await send(connection, [pack(command)])
                return await connection.read_response()
        except TimeoutError:
            await self._drop()
            raise self._hung.note(_timed_out()) from None
        except asyncio.CancelledError:
            await self._drop()
            raise

    async def _exchange_all(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        connection = self._connection or await self._connect()
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await send(connection, [pack(command) for command in commands])
                return [await connection.read_response() for _ in commands]
        except TimeoutError:
            await self._drop()
            raise self._hung.note(_timed_out()) from None
        except asyncio.CancelledError:
            await self._drop()
            raise

    async def _connect(self) -> AsyncConnection:
        connection = self._connection = await self._target.connect()
        self.generation += 1
        return connection

    async def _failed(self, error: Exception) -> StoreError:
        if elsewhere(error):
            self._target.doubt()
        if unusable(error):
            await self._drop()
        return self._told(error)

    def _told(self, error: Exception) -> StoreError:
        return self._hung.note(store_error(error)) if late(error) else store_error(error)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


class SyncLink:
    """The same for threads: calls wait for each other, and a child process opens a connection of its own."""

    def __init__(self, target: Target, timeout: float = REPLY_TIMEOUT) -> None:
        self._target = target
        self._timeout = timeout
        self._lock = threading.Lock()
        self._hung = _Hung()
        self._connection: SyncConnection | None = None
        self._pid = os.getpid()
        self.generation = 0

    def run(self, call: Call[T]) -> T:
        """Run a script and return its parsed reply. Raises StoreError."""
        asked = time.monotonic()
        with self._guard():
            self._hung.check(asked)
            try:
                reply = self._execute(call)
            except StoreError as error:
                raise self._explained(error, call) from None
        return call.parse(reply)

    def _execute(self, call: Call[Any]) -> Any:
        try:
            return self._exchange(call.by_sha())
        except RAISED as error:
            if not no_script(error):
                raise self._failed(error) from None
        return self._answer(call.by_source())

    def _explained(self, error: StoreError, call: Call[Any]) -> StoreError:
        inquiry, reply = explain(error, call), None
        try:
            while True:
                command = inquiry.send(reply)
                try:
                    reply = self._answer(command)
                except StoreError:
                    reply = None
        except StopIteration as end:
            return cast("StoreError", end.value)

    def command(self, *command: Argument) -> Any:
        """Run one command and return its reply. Raises StoreError."""
        asked = time.monotonic()
        with self._guard():
            self._hung.check(asked)
            return self._answer(command)

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send several commands at once, without a transaction, and return their replies. Raises StoreError."""
        asked = time.monotonic()
        with self._guard():
            self._hung.check(asked)
            try:
                connection = self._connection or self._connect()
                connection.send_packed_command([pack(command) for command in commands], check_health=False)
                return [connection.read_response() for _ in commands]
            except RAISED as error:
                self._drop()
                raise self._told(error) from None

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._guard():
            self._drop()

    def _guard(self) -> threading.Lock:
        if self._pid != os.getpid():
            # After a fork the parent's lock may be held by a thread that is not here, and its socket is not ours.
            self._pid, self._lock, self._connection = os.getpid(), threading.Lock(), None
        return self._lock

    def _answer(self, command: Sequence[Argument]) -> Any:
        try:
            return self._exchange(command)
        except RAISED as error:
            raise self._failed(error) from None

    def _exchange(self, command: Sequence[Argument]) -> Any:
        connection = self._connection or self._connect()
        connection.send_packed_command([pack(command)], check_health=False)
        return connection.read_response()

    def _connect(self) -> SyncConnection:
        connection = self._connection = self._target.connect_sync(self._timeout)
        self.generation += 1
        return connection

    def _failed(self, error: Exception) -> StoreError:
        if elsewhere(error):
            self._target.doubt()
        if unusable(error):
            self._drop()
        return self._told(error)

    def _told(self, error: Exception) -> StoreError:
        return self._hung.note(store_error(error)) if late(error) else store_error(error)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
