"""The bound of a test that measures: as it is on a quiet machine, and wider by what a busy one is slower."""

from __future__ import annotations

import pytest

from tests.support import waiting
from tests.support.waiting import slowness, within


@pytest.mark.parametrize(
    ("took", "slow", "passes"),
    [
        ([1.9], [], True),
        ([2.1, 2.1, 1.9], [1, 1], True),
        ([2.1, 2.2, 2.3], [1, 1, 1], False),
        ([5.9], [3], True),
        # Another's load ended with the try: what was measured before it counts too.
        ([6.1, 5.9], [3, 1], True),
        ([6.1, 2.1, 2.1], [3, 1, 1], True),
        ([6.1, 6.1, 2.1], [3, 1, 1], False),
    ],
)
def test_a_bound_is_that_of_a_quiet_machine_times_the_slowness_of_this_one(monkeypatch, took, slow, passes):
    told, slowly = iter(took), iter(slow)
    monkeypatch.setattr(waiting, "slowness", lambda: next(slowly))
    if passes:
        within(2, lambda: next(told))
    else:
        with pytest.raises(AssertionError, match="the bound of a quiet machine is 2 s"):
            within(2, lambda: next(told))


def test_no_machine_makes_the_bound_narrower():
    assert slowness() >= 1
