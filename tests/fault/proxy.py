"""A network between daemon and Redis that can fail: a TCP proxy on a thread of its own, told what to do by the test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from jobqd.scripts import Script
from tests.fault.requests import Rule, request_size
from tests.support.waiting import eventually

_CHUNK = 2**16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST (socket(7))


class Proxy:
    """Everything a test does to the network. `hits` counts what was done, by kind."""

    def __init__(self, upstream: Path, seed: int = 0) -> None:
        self._upstream = upstream
        self._random = Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pipes: set[_Pipe] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._rules: list[Rule] = []
        self._port = 0
        self.flow = asyncio.Event()
        self.flow.set()
        self.delay = 0.0
        """Seconds that everything takes in each direction."""
        self.chop = False
        """Whether data arrives in pieces of a few bytes, or several packets as one."""
        self.hits: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def add(self, kind: str, script: Script, times: int = 1, delay: float = 0.0) -> None:
        """Add a rule (see `Rule`)."""
        self._rules.append(Rule(kind, script, times, delay))

    def wait_hits(self, kind: str, count: int = 1) -> None:
        """Return when so many rules of a kind were applied."""
        eventually(lambda: self.hits[kind] >= count, f"{count} x {kind}, so far {dict(self.hits)}")

    def partition(self) -> None:
        """Let nothing through, in silence; new connections are accepted and hang as well."""
        self._call(self.flow.clear)

    def heal(self, *, deliver: bool = False) -> None:
        """End the partition: old connections are reset, or, with `deliver`, what was on its way arrives late."""
        if not deliver:
            self.reset()
        self._call(self.flow.set)

    def reset(self) -> None:
        """Reset every connection (RST)."""
        self._call(lambda: [pipe.abort() for pipe in list(self._pipes)])

    def half_close(self) -> None:
        """End every connection in one direction: the daemon reads the end of the stream, the server reads on."""
        self._call(lambda: [pipe.half_close() for pipe in list(self._pipes)])

    def wither(self, *, only_subscribed: bool = False) -> None:
        """Let every connection that there is, or those that subscribe, be dead without a sign to either end.

        That is what is left of one when a machine between them forgets it. New connections are as they should be.
        """
        self._call(lambda: [pipe.wither() for pipe in list(self._pipes) if pipe.subscribed or not only_subscribed])

    def match(self, request: bytes) -> Rule | None:
        rule = next((rule for rule in self._rules if rule.takes(request)), None)
        if rule is not None:
            self.hits[rule.kind] += 1
        return rule

    def send_late(self, request: bytes, delay: float) -> None:
        task = self._loop.create_task(self._copy(request, delay))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _copy(self, request: bytes, delay: float) -> None:
        await asyncio.sleep(delay)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(str(self._upstream))
            writer.write(request)
            await reader.read(_CHUNK)
            writer.close()
            self.hits["copy arrived"] += 1

    async def transmit(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self.flow.wait()
        if not self.chop:
            writer.write(data)
            return
        at = 0
        while at < len(data):
            size = self._random.choice((1, 2, 3, 7, 1000, 2**15))
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
            at += size

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        await self.flow.wait()
        return await asyncio.open_unix_connection(str(self._upstream))

    def _call(self, function: Callable[[], Any]) -> None:
        async def call() -> None:
            function()

        self._wait(call())

    def _wait(self, step: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)  # type: ignore[arg-type]

    def start(self) -> None:
        self._thread.start()
        self._wait(self._listen())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = _Pipe(self, reader, writer)
        self._pipes.add(pipe)
        try:
            await pipe.serve()
        finally:
            self._pipes.discard(pipe)

    def stop(self) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


class _Pipe:
    """One client's connection and its counterpart at the server. It carries one call at a time, as the daemon's do."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._lose_reply = False
        self._withered = False
        self.subscribed = False
        """Whether it carries messages, besides answers."""
        self._serving: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        self._serving = asyncio.current_task()
        upstream_writer: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            upstream_reader, upstream_writer = await self._proxy.open()
            pumps = [
                asyncio.ensure_future(self._requests(upstream_writer)),
                asyncio.ensure_future(self._replies(upstream_reader)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            self._writer.close()
            if upstream_writer is not None:
                upstream_writer.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(self, upstream: asyncio.StreamWriter) -> None:
        buffer = b""
        while data := await self._reader.read(_CHUNK):
            if self._withered:
                continue
            buffer += data
            while size := request_size(buffer):
                request, buffer = buffer[:size], buffer[size:]
                self.subscribed |= b"SUBSCRIBE" in request[:40].upper()
                rule = self._proxy.match(request)
                if rule is not None and rule.kind == "cut":
                    return self.abort()
                if rule is not None and rule.kind == "request":
                    continue
                if rule is not None and rule.kind == "error":
                    request = rule.broken(request)
                if rule is not None and rule.kind == "copy":
                    self._proxy.send_late(request, rule.delay)
                self._lose_reply = rule is not None and rule.kind == "reply"
                await self._proxy.transmit(request, upstream)
        return None

    async def _replies(self, upstream: asyncio.StreamReader) -> None:
        while data := await upstream.read(_CHUNK):
            if self._withered:
                continue
            if self._lose_reply:
                self.abort()
                return
            await self._proxy.transmit(data, self._writer)

    def wither(self) -> None:
        self._withered = True

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def abort(self) -> None:
        handle = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
        # What a partition or a delay holds back is lost with its connection.
        if self._serving is not None:
            self._serving.cancel()


@contextmanager
def proxy(upstream: Path, seed: int = 0) -> Iterator[Proxy]:
    """A proxy that is closed at the end, with all its connections."""
    made = Proxy(upstream, seed)
    made.start()
    try:
        yield made
    finally:
        made.stop()
