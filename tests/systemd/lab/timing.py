"""Times that the documents promise, measured on a machine that others may keep busy."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

_TRIES = 3
_BUSY = 2.0
"""Processes that want to run, for each processor, from which on a time tells of the others."""


def assert_takes_less(limit: float, measure: Callable[[], float], what: str) -> int:
    """Measure, three times at most, until it takes less than so many seconds; prints the figures, returns the tries.

    Where no try does, it is a failure, unless so much else runs on this machine that nothing is shown: then a skip.
    """
    took: list[float] = []
    while len(took) < _TRIES and min(took, default=limit) >= limit:
        took.append(measure())
    figures = f"{what}: {', '.join(f'{seconds:.2f} s' for seconds in took)}"
    print(figures)
    processors, load = os.cpu_count() or 1, os.getloadavg()[0]
    if min(took) >= limit and load > _BUSY * processors:
        pytest.skip(f"{figures}; but {load:.0f} processes want to run on {processors} processors: this tells nothing")
    assert min(took) < limit, figures
    return len(took)
