"""A reload reaches every part: what each holds is what it would hold if it had been made with the new settings."""

from __future__ import annotations

from typing import Any

import pytest

from jobqd.app.parts import Parts
from jobqd.app.reload import LIVE
from jobqd.handlers import Handlers
from jobqd.keys import Keys
from jobqd.settings import Settings
from jobqd.store import Target
from tests.support.assembled import assembled
from tests.support.parts import claimed

OTHER: dict[str, Any] = {
    "block_limit": 77.0, "concurrency": 5, "dead_max": 3, "dead_ttl": 777.0, "drain_timeout": 7.0, "job_ttl": 70.0,
    "max_age": 7777.0, "max_attempts": 7, "max_crashes": 4, "max_interruptions": 9, "max_payload": 700,
    "max_result": 800, "retry_delay": 1.5, "retry_max_delay": 55.0, "timeout": 66.0,
}  # fmt: skip
ELSEWHERE = {"log_level", "max_ready"}
"""The log's level is set by the daemon beside the parts; `max_ready` is for clients."""


@pytest.fixture
def handlers() -> Handlers:
    handlers = Handlers()

    @handlers.job("film", concurrency=2)
    async def film() -> None: ...

    return handlers


def held(parts: Parts) -> dict[str, object]:
    """Return what the parts hold of their settings."""
    return {
        "policy": parts.policies.of(claimed(type="film")),
        "workers": (parts.pool.concurrency, parts.pool.idle, parts.presence.concurrency),
        "threads": parts.services.threads._max_workers,
        "caps": dict(parts.pool.allowances()),
        "claim": (parts.claimer._max_age, parts.claimer._max_crashes, parts.claimer._sizes),
        "ledger": (parts.ledger.dead_max, parts.ledger.trimmed_ttl),
        "walk": (parts.walker.max_age, parts.walker.job_ttl),
        "block_limit": parts.watch.limit,
        "max_result": parts.services.max_result,
        "children": vars(parts.services.children) | {"_guardian": None, "_log": None, "edition": None},
        "stop": (parts.settings.drain_timeout, parts.settings.max_interruptions),
    }


def test_every_live_setting_is_tried() -> None:
    assert set(OTHER) | ELSEWHERE == LIVE


@pytest.mark.parametrize("name", [*sorted(OTHER), "jobs", "everything"])
async def test_parts_that_adopt_settings_are_as_if_made_with_them(handlers: Handlers, name: str) -> None:
    jobs = {"film": {"concurrency": 4, "timeout": 33.0}}
    changes = {"jobs": jobs} if name == "jobs" else OTHER if name == "everything" else {name: OTHER[name]}
    target = Target("unix:///nowhere.sock")
    async with (
        assembled(target, Keys(), handlers, **changes) as made,
        assembled(target, Keys(), handlers) as changed,
    ):
        assert held(changed) != held(made)
        changed.adopt(Settings(lease=15.0, **changes))
        assert held(changed) == held(made)
        changed.adopt(Settings(lease=15.0))
        async with assembled(target, Keys(), handlers) as plain:
            assert held(changed) == held(plain)


async def test_the_watchdog_still_bounds_how_long_the_loop_may_be_blocked(handlers: Handlers) -> None:
    async with assembled(Target("unix:///nowhere.sock"), Keys(), handlers) as parts:
        parts._watchdog = 30.0
        parts.adopt(Settings(block_limit=600.0))
        assert parts.watch.limit == 20.0
