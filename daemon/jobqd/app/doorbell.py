"""The socket at which `jobqd reload` asks for a reload and waits for what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from jobqd.app.reload import Report
from jobqd.clock import Log
from jobqd.socketfile import listen, peer

_PATIENCE = 10.0
_REQUEST_MAX = 4 * 2**20

Ring = Callable[[Mapping[str, str] | None], Awaitable[Report]]


class Doorbell:
    """Listens at a path, for this user and root. One line of JSON comes, one goes back.

    The request: `{"environ": {"JOBQD_X": "…"}}`, or `{}` to go on with the environment of before. The answer has the
    fields of `Report`.
    """

    def __init__(self, path: Path, ring: Ring, log: Log) -> None:
        self._path = path
        self._ring = ring
        self._log = log
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a daemon that cannot only says so: it can be reloaded by a signal all the same."""
        try:
            self._server = await asyncio.start_unix_server(self._answer, sock=listen(self._path), limit=_REQUEST_MAX)
        except OSError as error:
            self._log.warning("reload.deaf", problem=f"{self._path}: {error.strerror or error}")

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await self._request(reader, writer)
            if request is not None:
                report = await self._ring(request.get("environ"))
                writer.write(json.dumps(asdict(report)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # whoever asked is gone, or did not ask properly (TimeoutError is an OSError)
        finally:
            writer.close()

    @staticmethod
    async def _request(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> dict[str, dict[str, str] | None] | None:
        if peer(writer.get_extra_info("socket")).uid not in (0, os.getuid()):
            return None
        request = json.loads(await reader.readline())
        return request if isinstance(request, dict) else None
