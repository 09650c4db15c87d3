"""What goes wrong, at random but by a seed: one fault after another, each with its repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import redis

from tests.fault.laboratory import Laboratory

Strike = Callable[[], None]


class Nemesis:
    """Strikes, and measures each time how long after its repair a new job is done."""

    def __init__(self, lab: Laboratory, random: Random, strikes: Sequence[Strike]) -> None:
        self._lab, self._random, self._strikes = lab, random, strikes
        self._turn: list[Strike] = []
        self.count: Counter[str] = Counter()

    def strike(self) -> str:
        """Let one fault happen, whole; returns its name. Each has its turn before one comes again."""
        if not self._turn:
            self._turn = self._random.sample(self._strikes, len(self._strikes))
        fault = self._turn.pop()
        self.count[fault.__name__] += 1
        self._lab.fault()
        try:
            fault()
            self._lab.outage_over()
        except redis.RedisError as error:
            # The nemesis is a client too, and its own command may meet the fault before.
            return f"{fault.__name__} ({type(error).__name__})"
        return fault.__name__
