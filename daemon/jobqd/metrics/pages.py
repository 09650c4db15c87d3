"""What the endpoint answers: figures for Prometheus, and two questions with yes or no."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from jobqd.metrics.server import Page, Pages
from jobqd.metrics.vitals import Vitals


def pages(registry: CollectorRegistry, look: Callable[[], Vitals]) -> Pages:
    """Return the pages by their paths."""

    def metrics(accept: str) -> Page:
        encode, kind = choose_encoder(accept)
        return Page(200, kind, encode(registry))

    def healthz(_: str) -> Page:
        return _verdict(look().unwell())

    def readyz(_: str) -> Page:
        return _verdict(look().idle())

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


def _verdict(problem: str | None) -> Page:
    return Page(200 if problem is None else 503, "text/plain; charset=utf-8", f"{problem or 'ok'}\n".encode())
