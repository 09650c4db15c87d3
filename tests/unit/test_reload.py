"""Reloading: what differs, what can change, what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobqd.app.reload import LIVE, Configuration, Reloader, differences
from jobqd.errors import ConfigError
from jobqd.settings import Loaded, Settings
from jobqd.settings.model import setting_names
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog
from tests.support.waiting import soon


class Told:
    """A notifier that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def reloading(self) -> None:
        self.said.append("reloading")

    def ready(self, status: str = "") -> None:
        self.said.append("ready")


class Office:
    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.coming: Settings | Exception = self.settings
        self.environs: list[dict[str, str]] = []
        self.adopted: list[Settings] = []
        self.log, self.told, self.state = RecordingLog(), Told(), "running"
        self.clock = ManualClock()
        configuration = Configuration(self.settings, self._again, {"PATH": "/bin", "JOBQD_TIMEOUT": "1h"})
        self.reloader = Reloader(
            configuration, self.told, self.log,  # type: ignore[arg-type]
            adopt=self.adopted.append, warn=lambda _: ["[jobs.x] is odd"], state=lambda: self.state, clock=self.clock,
        )  # fmt: skip

    def _again(self, environ: Any) -> Loaded:
        self.environs.append(dict(environ))
        if isinstance(self.coming, Exception):
            raise self.coming
        return Loaded(self.coming, {}, ["a warning"])


def test_every_setting_is_either_live_or_needs_a_restart() -> None:
    """A new setting needs a restart until somebody makes it live, and then `Parts.adopt` follows it."""
    restart = set(setting_names()) - LIVE
    assert set(setting_names()) >= LIVE
    assert restart == {
        "redis_url", "redis_username", "redis_password", "tls_ca", "queue", "key_prefix", "allow_eviction", "instance",
        "runtime_dir", "handlers", "app_dir", "lease", "log_format", "metrics",
    }  # fmt: skip


async def test_what_can_change_does_and_the_rest_is_named() -> None:
    office = Office(concurrency=4, jobs={"film": {"timeout": "1h"}})
    office.coming = Settings(
        concurrency=8,
        queue="other",
        redis_password="secret",
        jobs={"film": {"concurrency": 2}, "mail": {"job_ttl": "1m"}},
    )
    report = await office.reloader.reload()
    assert report.changed == [
        "concurrency: 4 -> 8", "[jobs.film] concurrency: not set -> 2", "[jobs.film] timeout: 1h -> not set",
        "[jobs.mail] job_ttl: not set -> 1m",
    ]  # fmt: skip
    assert len(report.restart) == 2
    assert report.restart[1] == "queue: job_queue -> other"
    assert "secret" not in str(report) + str(office.log.records)
    (adopted,) = office.adopted
    assert (adopted.concurrency, adopted.queue, adopted.redis_password) == (8, "job_queue", None)
    assert adopted.jobs["film"].concurrency == 2
    assert office.told.said == ["reloading", "ready"]
    assert [event for level, event, _ in office.log.records if level != "info"] == [
        "config.warning", "config.warning", "daemon.restart_needed",
    ]  # fmt: skip
    # What needs a restart is still not in force, so it is named again.
    again = await office.reloader.reload()
    assert (again.changed, again.restart) == ([], report.restart)
    assert office.log.of("daemon.reloaded")[-1]["changes"] == "nothing has changed"


async def test_another_secret_is_told_without_either() -> None:
    office = Office(redis_password="first")
    office.coming = Settings(redis_password="second")
    assert (await office.reloader.reload()).restart == ["redis_password: another one"]


async def test_a_bad_configuration_changes_nothing_and_says_why() -> None:
    office = Office()
    office.coming = ConfigError("concurrency: it is not a number")
    report = await office.reloader.reload()
    assert (report.problem, report.changed, office.adopted) == ("concurrency: it is not a number", [], [])
    ((level, event, fields),) = office.log.records
    assert (level, event, fields["problem"]) == ("error", "daemon.reload_refused", report.problem)
    assert office.told.said == ["reloading", "ready"]


async def test_whatever_goes_wrong_while_it_is_read_is_told_and_changes_nothing() -> None:
    office = Office()
    office.coming = RuntimeError("can't start new thread")
    report = await office.reloader.reload()
    assert (report.problem, office.adopted) == ("RuntimeError: can't start new thread", [])
    assert office.log.of("daemon.reload_refused")[0]["problem"] == report.problem
    assert office.told.said == ["reloading", "ready"]


async def test_the_smallest_duration_can_be_told() -> None:
    office = Office()
    office.coming = Settings(retry_delay=1e-8)
    assert (await office.reloader.reload()).changed == ["retry_delay: 10s -> 1e-08"]


@pytest.mark.parametrize(("state", "read", "said"), [("starting", 1, []), ("stopping", 0, [])])
async def test_what_is_not_running_does_not_say_that_it_is_ready(state: str, read: int, said: list[str]) -> None:
    office = Office()
    office.state = state
    report = await office.reloader.reload()
    assert len(office.environs) == read
    assert bool(report.problem) is (read == 0)
    assert office.told.said == said


async def test_the_environment_that_came_with_the_order_counts_from_then_on() -> None:
    office = Office()
    await office.reloader.reload({"JOBQD_CONCURRENCY": "3"})
    await office.reloader.reload()
    assert office.environs == [{"PATH": "/bin", "JOBQD_CONCURRENCY": "3"}] * 2
    office.coming = ConfigError("no")
    await office.reloader.reload({"JOBQD_CONCURRENCY": "many"})
    office.coming = office.settings
    await office.reloader.reload()
    assert office.environs[-1] == {"PATH": "/bin", "JOBQD_CONCURRENCY": "3"}, "a refused one is forgotten"


async def test_a_storm_of_signals_is_a_reload_each_second() -> None:
    office = Office()
    loop = asyncio.create_task(office.reloader.run())
    for _ in range(100):
        office.reloader.ask()
    await soon(lambda: office.environs)
    for _ in range(100):
        office.reloader.ask()
        await asyncio.sleep(0)
    await soon(lambda: office.clock.slept == [1.0])
    # What is asked for at the socket is answered at once, and puts the signal's turn off.
    office.clock.advance(0.6)
    await office.reloader.reload()
    assert len(office.environs) == 2
    office.clock.advance(0.4)
    await soon(lambda: len(office.clock.slept) == 2)
    office.clock.advance(0.6)
    await soon(lambda: len(office.environs) == 3)
    loop.cancel()
    assert office.told.said == ["reloading", "ready"] * 3


def test_differences_follow_the_order_of_the_documentation() -> None:
    changes = differences(Settings(), Settings(timeout="1m", concurrency=1))
    assert [str(change) for change in changes] == ["concurrency: 32 -> 1", "timeout: 1h -> 1m"]
