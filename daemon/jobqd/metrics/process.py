"""What the daemon's process uses, under the names that other programs export for themselves.

prometheus-client's own collector needs /proc/stat, which a hardened unit hides (ProcSubset=pid), and then says nothing.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class ProcessCollector:
    """Figures of this process; `started_at` are Unix seconds."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment."""
        times = os.times()
        yield CounterMetricFamily(
            "process_cpu_seconds", "Processor time used, without that of child processes.",
            value=times.user + times.system,
        )  # fmt: skip
        yield GaugeMetricFamily("process_start_time_seconds", "When it started, in Unix time.", value=self._started_at)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in use.", value=_resident())
        yield GaugeMetricFamily("process_open_fds", "Open files and sockets.", value=_open_files())
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield GaugeMetricFamily("process_max_fds", "Most files and sockets that it may open.", value=most)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _resident() -> int:
    """The second number of /proc/self/statm are resident pages (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
