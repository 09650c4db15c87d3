"""Rows of other places, and the mix of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.soak import soaking


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_row_29_a_random_mix(version: str, tmp_path: Path, seed: int) -> None:
    with soaking(version, tmp_path, seed) as soak:
        for number in range(1, 7):
            soak.round(number)
        assert soak.flat(), soak.growth()
