"""A booted machine for the session, a fresh application for each test; skipped where none can boot: lab/possible.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.lab import Application, Failed, Machine, Unavailable, boot, prepare, tolerated

_HERE = Path(__file__).parent
_TIMEOUT = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of all waits for the machine, and that of a new cache for a download: it is not charged for it."""
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A Debian that has booted, with a Redis, and the tree under test in /srv/shop/.venv. All tests share it."""
    try:
        with boot(prepare()) as machine:
            yield machine
    except (Unavailable, Failed) as reason:
        if tolerated(reason):
            pytest.skip(f"no systemd lab: {reason}")
        pytest.exit(f"no systemd lab, and there should be one: {reason}", returncode=1)


@pytest.fixture
def shop(machine: Machine) -> Iterator[Application]:
    """An application that is not installed as a service yet."""
    application = Application(machine)
    yield application
    application.clear()


@pytest.fixture
def app(shop: Application) -> Application:
    """An application whose units are installed, as `make install` does it; handlers and settings are up to the test."""
    shop.install()
    return shop
