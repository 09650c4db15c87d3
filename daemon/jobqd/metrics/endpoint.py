"""The metrics endpoint: a thread that listens, tries again where it cannot, and never keeps a job from running."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from jobqd.clock import World
from jobqd.metrics.server import LocalServer, Pages
from jobqd.settings.local import LocalAddress

RETRY_EVERY = 5.0
_JOIN_PATIENCE = 2.0


class Endpoint:
    """Serves pages from a thread of its own, so that it answers while the event loop is blocked."""

    def __init__(self, address: LocalAddress, pages: Pages, world: World, *, on_tick: Callable[[], None]) -> None:
        self._address = address
        self._pages = pages
        self._log = world.log
        self._on_tick = on_tick
        self._stop = threading.Event()
        self._server: LocalServer | None = None
        self._thread = threading.Thread(target=self._run, name="jobqd-metrics", daemon=True)
        self.problem: str | None = None
        """Why nothing is served, None while all is well."""

    def start(self) -> None:
        """Begin to listen; what goes wrong is logged once and tried again."""
        self._listen()
        self._thread.start()

    def close(self) -> None:
        """Hang up and end the thread."""
        self._stop.set()
        if self._server is not None:
            self._server.stop()
        self._thread.join(_JOIN_PATIENCE)

    def _run(self) -> None:
        while self._server is None and not self._stop.wait(RETRY_EVERY):
            self._listen()
        if self._server is not None:
            if self._stop.is_set():
                # Whoever closed the endpoint may have done so before there was a server to stop.
                self._server.stop()
            self._server.serve()

    def _listen(self) -> None:
        try:
            server = LocalServer(self._address, self._pages, on_tick=self._on_tick, on_error=self._broke)
        except OSError as error:
            if self.problem is None:
                self._log.error("metrics.failed", address=str(self._address), error=str(error), interval=RETRY_EVERY)
            self.problem = str(error)
            return
        self._server, self.problem = server, None
        self._log.info("metrics.listening", address=server.name)

    def _broke(self) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            self._log.exception("metrics.broke")
