"""Whether the metrics endpoint is served, for `jobqd check`: the daemon may run or not."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from pathlib import Path

from jobqd.duties.startup import Finding
from jobqd.metrics.server import NAME
from jobqd.settings.local import LocalAddress
from jobqd.socketfile import connect

_PATIENCE = 2.0


class _Connection(HTTPConnection):
    def __init__(self, address: LocalAddress) -> None:
        super().__init__(address.host or "localhost", address.port, timeout=_PATIENCE)
        self._path = address.path

    def connect(self) -> None:
        if self._path:
            self.sock = connect(Path(self._path), _PATIENCE)
        else:
            super().connect()


def find_endpoint(address: LocalAddress) -> Finding:
    """Return what is at this address."""
    connection = _Connection(address)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        told = answer.read(1000).decode(errors="replace").strip()
    except (ConnectionRefusedError, FileNotFoundError):
        return Finding(True, "metrics", f"nothing is served at {address} yet: it is while the daemon runs")
    except (OSError, HTTPException) as error:
        return Finding(None, "metrics", f"what listens at {address} does not answer: {error or type(error).__name__}")
    finally:
        connection.close()
    if answer.headers.get("Server", "").strip() != NAME:
        return Finding(None, "metrics", f"another program listens at {address}: the daemon would run without metrics")
    return Finding(True, "metrics", f"a jobqd answers at {address}: {'ready' if answer.status == 200 else told}")
