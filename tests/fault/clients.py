"""A producer of either version, in a process of its own: the clients of two versions cannot share an interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
from jobqd import SyncQueue

with SyncQueue.from_url(sys.argv[1]) as queue:
    for line in sys.stdin:
        order, rest = json.loads(line)
        if order == "enqueue":
            job_type, fields, options = rest
            answer = queue.enqueue(job_type, fields, **options).id
        elif order == "cancel":
            answer = queue.job(rest).cancel()
        else:
            answer = queue.retry_dead(rest)
        print(json.dumps(answer), flush=True)
"""


class Client:
    """Enqueues, cancels and retries through the client library of one version; each call returns its answer."""

    def __init__(self, package: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, url], env={**os.environ, "PYTHONPATH": str(package)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def enqueue(self, job_type: str, fields: dict[str, object], **options: object) -> str:
        """Enqueue a job; returns its id."""
        return str(self._ask("enqueue", [job_type, fields, options]))

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; returns whether it had not ended."""
        return bool(self._ask("cancel", job_id))

    def retry_dead(self, ids: list[str]) -> dict[str, str]:
        """Put dead letters back into the queue."""
        return dict(self._ask("retry_dead", ids))

    def _ask(self, order: str, rest: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([order, rest]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


@contextmanager
def client(package: Path, url: str) -> Iterator[Client]:
    """A client that is ended in the end."""
    made = Client(package, url)
    try:
        yield made
    finally:
        made.close()
