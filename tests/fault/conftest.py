"""The fault laboratory's fixtures. Long scenarios run with JOBQD_FAULTS=all (`make faults`).

Each row runs on the newest Redis of this machine. Those marked `each_redis`, where Redis itself is struck or its
answers differ between versions, run on all of them with JOBQD_FAULTS=all. JOBQD_FAULTS_REDIS=6.2 runs all rows there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fault.figures import published
from tests.fault.laboratory import Laboratory, laboratory, release
from tests.fault.scenes import MakeLaboratory
from tests.redis_server import VERSIONS, binaries

_VERSION = re.compile(r"\[(redis-[\d.]+)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "each_redis: a fault scenario that runs on every version of Redis")
    config.addinivalue_line("markers", "long: a fault scenario of more than a few seconds; runs with make faults")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "version" not in metafunc.fixturenames:
        return
    found = sorted(binaries(), key=release) or [VERSIONS[-1]]
    each = os.environ.get("JOBQD_FAULTS") == "all" and metafunc.definition.get_closest_marker("each_redis")
    chosen = os.environ.get("JOBQD_FAULTS_REDIS")
    versions = [chosen] if chosen else found if each else found[-1:]
    metafunc.parametrize("version", versions, ids=[f"redis-{version}" for version in versions], indirect=True)


@pytest.fixture
def version(request: pytest.FixtureRequest) -> str:
    """The version of Redis that this scenario runs on."""
    if request.param not in binaries():
        pytest.skip(f"no redis-server {request.param} on this machine")
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("JOBQD_FAULTS") == "all":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hand a scenario's figures to its report, which reaches the summary from another process too."""
    published.clear()
    try:
        return (yield)
    finally:
        item.user_properties.extend(("figures", line) for line in published)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each scenario injected, and what came of it."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [
        f"{text} [{version_of(report.nodeid)}]"
        for report in reports if report.when == "call" for name, text in report.user_properties if name == "figures"
    ]  # fmt: skip
    if lines:
        terminalreporter.section("faults injected, and what came of them")
        for line in sorted(lines, key=row_number):
            terminalreporter.write_line(line)


def version_of(nodeid: str) -> str:
    """Return the Redis that a scenario ran on, by its name; "" for one that has none in it."""
    found = _VERSION.search(nodeid)
    return found[1] if found else ""


def row_number(line: str) -> tuple[int, str]:
    """Return what figures are sorted by."""
    found = re.match(r"row (\d+)", line)
    return int(found[1]) if found else 0, line


@pytest.fixture
def make(version: str, tmp_path: Path) -> Iterator[MakeLaboratory]:
    """Make a laboratory whose server has these arguments."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(laboratory(version, tmp_path, *arguments))


@pytest.fixture
def lab(make: MakeLaboratory) -> Laboratory:
    """A laboratory on a plain server."""
    return make()
