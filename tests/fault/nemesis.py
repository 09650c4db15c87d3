"""What goes wrong, at random but by a seed: each method is one fault with its repair."""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random

import redis

from jobqd.scripts import script
from tests.fault.laboratory import Laboratory
from tests.fault.proxy import Proxy
from tests.support.daemon import Daemon

SCRIPTS = ("claim", "settle", "beat", "progress", "promote", "lapsed")


class Nemesis:
    """Strikes at the daemon whose life is worth nothing, at the network before all of them, and at Redis."""

    def __init__(self, lab: Laboratory, net: Proxy, random: Random, victim: Callable[[], Daemon]) -> None:
        self._lab, self._net, self._random = lab, net, random
        self._start = victim
        self._victim = victim()
        self._faults = (
            self._kill, self._pause, self._stop, self._freeze_redis, self._kill_redis, self._cut_clients, self._reset,
            self._half_close, self._partition, self._lose_or_copy, self._slow, self._chop, self._flush,
            self._hold_writes, self._fill_memory,
        )  # fmt: skip

    def strike(self) -> str:
        """Let one fault happen, whole; returns its name."""
        fault = self._random.choice(self._faults)
        self._lab.fault()
        try:
            fault()
        except redis.RedisError as error:
            # The nemesis is a client too, and its own command may meet the fault before.
            return f"{fault.__name__[1:]} ({type(error).__name__})"
        return fault.__name__[1:]

    def _last(self, longest: float) -> None:
        self._lab.hold(self._random.uniform(0.1, longest))

    def _again(self) -> None:
        self._victim = self._start()

    def _kill(self) -> None:
        self._victim.kill()
        self._again()

    def _pause(self) -> None:
        self._victim.signal(signal.SIGSTOP)
        self._last(2.5)
        self._victim.signal(signal.SIGCONT)

    def _stop(self) -> None:
        status = self._victim.stop(timeout=30)
        assert status == 0, self._victim.log[-3000:]
        self._again()

    def _freeze_redis(self) -> None:
        self._lab.server.freeze()
        self._last(2.5)
        self._lab.server.thaw()

    def _kill_redis(self) -> None:
        self._lab.server.kill()
        self._last(0.5)
        self._lab.server.start()

    def _cut_clients(self) -> None:
        for kind in ("normal", "pubsub"):
            self._lab.redis.client_kill_filter(_type=kind, skipme=True)

    def _reset(self) -> None:
        self._net.reset()

    def _half_close(self) -> None:
        self._net.half_close()

    def _partition(self) -> None:
        self._net.partition()
        self._last(2.5)
        self._net.heal(deliver=self._random.random() < 0.5)

    def _lose_or_copy(self) -> None:
        kind = self._random.choice(("reply", "cut", "copy"))
        times = self._random.randint(1, 5)
        self._net.add(kind, script(self._random.choice(SCRIPTS)), times, delay=self._random.uniform(0.0, 1.5))
        self._last(0.5)

    def _slow(self) -> None:
        self._net.delay = self._random.uniform(0.0, 0.1)
        self._last(1.0)
        self._net.delay = 0.0

    def _chop(self) -> None:
        self._net.chop = True
        self._last(1.0)
        self._net.chop = False

    def _flush(self) -> None:
        self._lab.redis.script_flush()

    def _hold_writes(self) -> None:
        self._lab.redis.execute_command("CLIENT", "PAUSE", self._random.randint(100, 1500), "WRITE")

    def _fill_memory(self) -> None:
        used = int(self._lab.redis.info("memory")["used_memory"])
        self._lab.redis.config_set("maxmemory", max(1, used - 10_000))
        try:
            self._last(0.5)
        finally:
            self._lab.redis.config_set("maxmemory", 0)
