"""The figures under the names that docs/operations.md explains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jobqd import __version__
from jobqd.metrics.lag import LoopLag
from jobqd.metrics.queue import QueueReader
from jobqd.metrics.tally import OTHER, Tally
from jobqd.metrics.vitals import Vitals
from jobqd.store.counting import Stats

EVENTS = (
    "entered", "completed", "failed", "cancelled", "retried", "snoozed", "returned", "lapsed", "crashed", "interrupted",
    "refused", "dropped", "vanished",
)  # fmt: skip
"""The counters of docs/protocol.md."""


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


class DaemonCollector:
    """What this daemon did and how it is; needs no Redis."""

    def __init__(self, tally: Tally, lag: LoopLag, look: Callable[[], Vitals], *, instance: str, queue: str) -> None:
        self._tally = tally
        self._lag = lag
        self._look = look
        self._labels = {"version": __version__, "daemon": instance, "queue": queue}

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment."""
        info = GaugeMetricFamily("jobqd_info", "Which daemon this is; always 1.", labels=list(self._labels))
        info.add_metric(list(self._labels.values()), 1)
        yield info
        yield from self._of_vitals(self._look())
        yield from self._of_types()
        yield _histogram_of_scripts(self._tally)
        lag = HistogramMetricFamily(
            "jobqd_loop_lag_seconds", "How long the event loop takes to answer, asked twice a second.", labels=()
        )
        lag.add_metric((), *self._lag.answers.buckets())
        yield lag
        yield CounterMetricFamily(
            "jobqd_leases_lost", "Runs whose lease ran out under them.", value=self._tally.leases_lost
        )

    def _of_vitals(self, now: Vitals) -> Iterator[Metric]:
        yield _gauge("jobqd_claiming", "1 while it claims jobs, as /readyz says.", now.idle() is None)
        yield _gauge("jobqd_workers", "How many jobs it runs at once.", now.workers)
        yield _gauge("jobqd_workers_busy", "How many it runs now.", now.busy)
        yield _gauge("jobqd_settle_backlog", "Ended runs that Redis does not know yet.", now.backlog)
        yield _gauge("jobqd_loop_blocked_seconds", "How long the event loop has not turned.", now.owed)
        yield _gauge("jobqd_redis_away_seconds", "How long Redis has not served it.", now.away or 0.0)
        yield CounterMetricFamily("jobqd_redis_outages", "How many times Redis went away.", value=now.outages)

    def _of_types(self) -> Iterator[Metric]:
        started = CounterMetricFamily("jobqd_jobs_started", "Runs begun.", labels=("type",))
        ended = CounterMetricFamily("jobqd_jobs_ended", "Runs ended, by how.", labels=("type", "outcome"))
        ran = HistogramMetricFamily("jobqd_job_run_seconds", "How long runs took.", labels=("type",))
        waited = HistogramMetricFamily(
            "jobqd_job_wait_seconds", "From the moment a job was due to its claim.", labels=("type",)
        )
        for name, tally in self._tally.by_type.items():
            # The loop counts on meanwhile: in this order no more runs have ended than were started.
            for outcome, count in tally.ended.items():
                ended.add_metric((name, outcome), count)
            started.add_metric((name,), tally.started)
            ran.add_metric((name,), *tally.ran.buckets())
            waited.add_metric((name,), *tally.waited.buckets())
        yield from (started, ended, ran, waited)


def _histogram_of_scripts(tally: Tally) -> Metric:
    trips = HistogramMetricFamily(
        "jobqd_redis_roundtrip_seconds", "From sending a script to its reply, as the event loop sees it.",
        labels=("script",),
    )  # fmt: skip
    for script, histogram in tally.trips.items():
        trips.add_metric((script,), *histogram.buckets())
    return trips


class QueueCollector:
    """The queue as Redis has it, the same from every daemon. Where Redis does not answer there are no figures."""

    def __init__(self, reader: QueueReader, types: Collection[str], *, queue: str) -> None:
        self._reader = reader
        self._types = types
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment, or of at most two seconds ago."""
        stats = self._reader.read()
        yield _gauge("jobqd_redis_up", "1 if Redis gave the queue's figures.", stats is not None)
        if stats is None:
            return
        yield from self._sizes(stats)
        yield from self._held(stats)
        labels = ("queue", "event")
        events = CounterMetricFamily("jobqd_queue_events", "Counted in Redis, by all daemons.", labels=labels)
        for event in EVENTS:
            events.add_metric((self._queue, event), stats.counters.get(event, 0))
        yield events

    def _sizes(self, stats: Stats) -> Iterator[Metric]:
        yield self._one("jobqd_queue_ready_jobs", "Jobs that a worker may take.", stats.ready)
        yield self._one("jobqd_queue_scheduled_jobs", "Jobs that are due later, retries among them.", stats.scheduled)
        yield self._one("jobqd_queue_active_jobs", "Jobs that run.", stats.active)
        yield self._one("jobqd_queue_overdue_jobs", "Jobs that run with a lease that ran out.", stats.overdue)
        yield self._one("jobqd_queue_dead_jobs", "Dead letters.", stats.dead)
        yield self._one("jobqd_queue_daemons", "Daemons that renewed their presence.", len(stats.daemons))
        workers = sum(daemon.concurrency for daemon in stats.daemons)
        yield self._one("jobqd_queue_workers", "Workers of all of them.", workers)
        oldest = 0.0 if stats.ready == 0 else stats.oldest
        if oldest is not None:
            yield self._one("jobqd_queue_oldest_ready_seconds", "How long the oldest ready job has waited.", oldest)

    def _held(self, stats: Stats) -> Iterator[Metric]:
        # Zero is told too: an alert compares what several daemons say of the types that they do not know.
        jobs: dict[str, int] = {**{f"type:{name}": 0 for name in self._types}, OTHER: 0}
        oldest: dict[str, float] = {}
        for reason, count in stats.held.items():
            label = reason if reason in jobs or reason in ("suspect", "missing") else OTHER
            jobs[label] = jobs.get(label, 0) + count
            waited = stats.held_oldest.get(reason)
            if waited is not None:
                oldest[label] = max(waited, oldest.get(label, 0.0))
        labels = ("queue", "reason")
        held = GaugeMetricFamily("jobqd_queue_held_jobs", "Jobs that may not run now, by reason.", labels=labels)
        meaning = "How long the oldest held job has waited."
        ages = GaugeMetricFamily("jobqd_queue_oldest_held_seconds", meaning, labels=labels)
        for reason, count in jobs.items():
            held.add_metric((self._queue, reason), count)
        for reason, seconds in oldest.items():
            ages.add_metric((self._queue, reason), seconds)
        yield from (held, ages)

    def _one(self, name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, meaning, labels=("queue",))
        family.add_metric((self._queue,), value)
        return family
