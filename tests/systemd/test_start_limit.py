"""Deaths in quick succession: however many jobs end the daemon, systemd starts it again."""

from __future__ import annotations

from tests.systemd.lab import Application, Machine

HANDLERS = """
import os
from jobqd import Handlers
handlers = Handlers()

@handlers.job
async def aborts():
    os.abort()

@handlers.job
async def nap():
    return None
"""
BURST, INTERVAL = 5, 10.0
"""systemd's own limit, for units that set none: five starts in ten seconds, DefaultStartLimitBurst= and the like."""


def starts(machine: Machine, after: str) -> list[float]:
    """Return when systemd began to start the daemon, each time, in seconds."""
    entries = machine.journal("jobqd", after=after)
    return [int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in entries
            if str(entry["MESSAGE"]).startswith("Starting jobqd.service")]  # fmt: skip


def test_many_poison_jobs_at_once_hit_no_start_limit(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    # One at a time, so that each of them costs the daemon two deaths of its own.
    app.settings(concurrency=1)
    machine.drop_in("jobqd.service", "quick", "[Service]\nRestartSec=10ms\n")
    before = machine.cursor()
    poison = [app.enqueue("aborts") for _ in range(4)]
    app.start()
    for job in poison:
        assert app.wait_for(job, "failed", timeout=60)["crashes"] == "3"
    app.wait_for(app.enqueue("nap"))
    assert machine.show("jobqd", "ActiveState") == "active"
    assert machine.show("jobqd", "NRestarts") == str(2 * len(poison))
    began = starts(machine, before)
    assert len(began) == 2 * len(poison) + 1
    quickest = min(later - first for first, later in zip(began, began[BURST:], strict=False))
    assert quickest < INTERVAL, "too slow to hit the limit that other units have: nothing was shown"
