"""The fault laboratory's fixtures. Long scenarios run with JOBQD_FAULTS=all (`make faults`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault.laboratory import Laboratory, laboratory

MakeLaboratory = Callable[..., Laboratory]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a fault scenario of more than a few seconds; runs with make faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("JOBQD_FAULTS") == "all":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeLaboratory]:
    """Make a laboratory whose server has these arguments."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(laboratory(tmp_path, *arguments))


@pytest.fixture
def lab(make: MakeLaboratory) -> Laboratory:
    """A laboratory on a plain server."""
    return make()
