"""A proxy before Redis that loses or holds back replies: the server has executed what its client knows nothing of."""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class ReplyThief:
    """Passes bytes on between clients and one server, except for the replies that a test names."""

    def __init__(self, upstream: Path, socket: Path) -> None:
        self._upstream = upstream
        self.url = f"unix://{socket}"
        self.lost = 0
        """How many replies were lost so far."""
        self.executed = asyncio.Event()
        """Set when the server has answered a request whose reply is lost or held back."""
        self.let_go = asyncio.Event()
        """To be set by the test: lets a reply that is held back go."""
        self.passed = 0
        """How many bytes of replies have been passed on."""
        self.rate = math.inf
        """Most bytes of replies a second, as on a slow link."""
        self._marker: bytes | None = None
        self._hold = False

    def lose_reply_to(self, marker: str) -> None:
        """Lose the reply to the next request that holds this text, and drop its connection."""
        self._marker, self._hold = marker.encode(), False

    def hold_reply_to(self, marker: str) -> None:
        """Hold the reply to the next request that holds this text back until `let_go`."""
        self._marker, self._hold = marker.encode(), True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side ends."""
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self._upstream))
        caught = asyncio.Event()
        pumps = [
            asyncio.create_task(self._requests(reader, upstream_writer, caught)),
            asyncio.create_task(self._replies(upstream_reader, writer, caught)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            upstream_writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, caught: asyncio.Event
    ) -> None:
        while data := await reader.read(2**20):
            if self._marker is not None and self._marker in data:
                self._marker = None
                caught.set()
            upstream.write(data)

    async def _replies(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, caught: asyncio.Event
    ) -> None:
        while data := await upstream.read(2**20):
            if caught.is_set():
                caught.clear()
                self.executed.set()
                if not self._hold:
                    self.lost += 1
                    return
                await self.let_go.wait()
            writer.write(data)
            await writer.drain()
            self.passed += len(data)
            if self.rate < math.inf:
                await asyncio.sleep(len(data) / self.rate)


@asynccontextmanager
async def reply_thief(upstream: Path) -> AsyncIterator[ReplyThief]:
    """A proxy on a Unix socket of its own."""
    with tempfile.TemporaryDirectory(prefix="jq") as directory:
        socket = Path(directory) / "p.sock"
        thief = ReplyThief(upstream, socket)
        clients: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(thief.serve(reader, writer))
            clients.add(task)
            task.add_done_callback(clients.discard)

        server = await asyncio.start_unix_server(accept, str(socket))
        try:
            yield thief
        finally:
            server.close()
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await server.wait_closed()
