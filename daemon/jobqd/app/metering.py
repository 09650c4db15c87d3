"""The metrics endpoint of one daemon, put together; imported only where `metrics` is set."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from jobqd.app.parts import Parts
from jobqd.clock import World
from jobqd.keys import Keys
from jobqd.metrics import Tally
from jobqd.metrics.endpoint import Endpoint
from jobqd.metrics.families import DaemonCollector, QueueCollector
from jobqd.metrics.lag import LoopLag
from jobqd.metrics.pages import pages
from jobqd.metrics.process import ProcessCollector
from jobqd.metrics.queue import QueueReader
from jobqd.metrics.vitals import Vitals
from jobqd.settings import Settings
from jobqd.settings.local import local_address
from jobqd.store import SyncLink, Target

_REPLY_TIMEOUT = 2.0
"""Seconds that Redis has for the queue's figures: a scrape is given up after ten, by default."""


def endpoint(settings: Settings, parts: Parts, target: Target, keys: Keys, world: World) -> Endpoint:
    """Return the endpoint, not started; to be called on the running loop."""
    tally = parts.observer
    assert isinstance(tally, Tally)  # noqa: S101 - parts count where metrics are set
    lag = LoopLag(asyncio.get_running_loop(), world.clock)

    def look() -> Vitals:
        away = parts.outage.away_since
        return Vitals(
            workers=parts.pool.concurrency,
            busy=parts.pool.busy,
            backlog=len(parts.settler),
            away=None if away is None else world.clock.monotonic() - away,
            outages=parts.outage.count,
            status=parts.presence.status,
            claimed=tally.claimed,
            owed=lag.owed(),
        )

    registry = CollectorRegistry()
    registry.register(DaemonCollector(tally, lag, look, instance=settings.instance, queue=keys.ready))
    reader = QueueReader(SyncLink(target, timeout=_REPLY_TIMEOUT), keys, world.clock)
    registry.register(QueueCollector(reader, tally.types, queue=keys.ready))
    registry.register(ProcessCollector(world.clock.time()))
    address = local_address(settings.metrics, settings.instance)
    return Endpoint(address, pages(registry, look), world, on_tick=lag.ask)
