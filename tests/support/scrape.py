"""Asking a daemon's metrics endpoint as Prometheus and load balancers do: plain HTTP over TCP or a Unix socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 12.0


@dataclass(frozen=True)
class Answer:
    """The status and text of one answer."""

    status: int
    kind: str
    text: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of one sample."""
        return self._values[name, frozenset(labels.items())]

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels among theirs."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self._values.items() if found == name and wanted <= having)

    @property
    def names(self) -> set[str]:
        """The names of all samples, as PromQL knows them."""
        return {name for name, _ in self._values}

    @property
    def metrics(self) -> set[str]:
        """The names of all metrics, as the document has them: histograms by one name."""
        return {f"{family.name}_total" if family.type == "counter" else family.name for family in self.families}

    def labels(self, name: str) -> set[str]:
        """The names of the labels of a sample."""
        return {label for found, having in self._values if found == name for label, _ in having}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


class Asker:
    """Asks one endpoint, at "host:port" or "unix:///path"."""

    def __init__(self, address: str) -> None:
        self._address = address

    def connection(self) -> http.client.HTTPConnection:
        if self._address.startswith("unix://"):
            return _UnixConnection(self._address.removeprefix("unix://"))
        return http.client.HTTPConnection(self._address, timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> Answer:
        connection = self.connection()
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers.get("Content-Type", ""), answer.read().decode())
        finally:
            connection.close()

    def scrape(self) -> Scrape:
        answer = self.get("/metrics")
        assert answer.status == 200, answer
        return Scrape(answer.text)
