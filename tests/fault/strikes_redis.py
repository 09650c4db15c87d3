"""Faults of the network before the daemons, and of Redis itself."""

from __future__ import annotations

import threading
from contextlib import suppress
from random import Random

import redis

from jobqd.scripts import script
from tests.fault.laboratory import Laboratory
from tests.fault.proxy import Proxy
from tests.fault.scenes import busy, killed
from tests.support.waiting import eventually

USER, PASSWORD = "worker", "first"
"""Whom the daemons are to Redis; kept on its command line, so that a restart knows it too."""
ARGUMENTS = ("--user", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all", "--lua-time-limit", "100")
SCRIPTS = ("claim", "settle", "beat", "progress", "promote", "lapsed", "checkpoint")
_CONSERVING = ("beat", "progress", "promote", "lapsed")
"""Scripts that leave nothing out of the books where an error ends them."""


class NetworkStrikes:
    """Each method is one fault, repaired when it returns, or counted out soon after."""

    def __init__(self, lab: Laboratory, net: Proxy, random: Random) -> None:
        self._lab, self._net, self._random = lab, net, random
        self.all = (
            self.cut_clients, self.reset, self.half_close, self.wither, self.partition, self.lose_or_copy,
            self.lose_in_silence, self.break_script, self.slow, self.chop,
        )  # fmt: skip

    def _last(self, longest: float) -> None:
        self._lab.hold(self._random.uniform(0.1, longest))

    def cut_clients(self) -> None:
        for kind in ("normal", "pubsub"):
            self._lab.redis.client_kill_filter(_type=kind, skipme=True)

    def reset(self) -> None:
        self._net.reset()

    def half_close(self) -> None:
        self._net.half_close()

    def wither(self) -> None:
        self._net.wither(only_subscribed=self._random.random() < 0.5)

    def partition(self) -> None:
        self._net.partition()
        self._last(2.5)
        self._net.heal(deliver=self._random.random() < 0.5)

    def lose_or_copy(self) -> None:
        kind = self._random.choice(("reply", "cut", "copy"))
        times = self._random.randint(1, 5)
        self._net.add(kind, script(self._random.choice(SCRIPTS)), times, delay=self._random.uniform(0.0, 1.5))
        self._last(0.5)

    def lose_in_silence(self) -> None:
        self._net.add("request", script(self._random.choice(SCRIPTS)))
        self._last(0.5)

    def break_script(self) -> None:
        self._net.add("error", script(self._random.choice(_CONSERVING)), self._random.randint(1, 5))
        self._last(0.5)

    def slow(self) -> None:
        self._net.delay = self._random.uniform(0.0, 0.1)
        self._last(1.0)
        self._net.delay = 0.0

    def chop(self) -> None:
        self._net.chop = True
        self._last(1.0)
        self._net.chop = False


class RedisStrikes:
    """Each method is one fault, repaired when it returns."""

    def __init__(self, lab: Laboratory, random: Random) -> None:
        self._lab, self._random = lab, random
        self.all = (
            self.freeze, self.kill, self.flush_scripts, self.hold_writes, self.fill_memory, self.refuse_writes,
            self.be_a_replica, self.be_busy, self.change_password, self.narrow_acl,
        )  # fmt: skip

    def _last(self, longest: float) -> None:
        self._lab.hold(self._random.uniform(0.1, longest))

    def freeze(self) -> None:
        self._lab.server.freeze()
        self._last(2.5)
        self._lab.server.thaw()

    def kill(self) -> None:
        self._lab.server.kill()
        self._last(0.5)
        self._lab.server.start()

    def flush_scripts(self) -> None:
        self._lab.redis.script_flush()

    def hold_writes(self) -> None:
        self._lab.redis.execute_command("CLIENT", "PAUSE", self._random.randint(100, 1500), "WRITE")

    def fill_memory(self) -> None:
        used = int(self._lab.redis.info("memory")["used_memory"])
        self._during(("CONFIG", "SET", "maxmemory", max(1, used - 10_000)), ("CONFIG", "SET", "maxmemory", 0))

    def refuse_writes(self) -> None:
        order = ("CONFIG", "SET", "min-replicas-to-write")
        self._during((*order, 1), (*order, 0))

    def be_a_replica(self) -> None:
        self._during(("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE"))

    def change_password(self) -> None:
        order = ("ACL", "SETUSER", USER, "resetpass")
        self._lab.redis.execute_command(*order, ">second")
        self._lab.redis.client_kill_filter(user=USER)
        self._during((*order, ">second"), (*order, f">{PASSWORD}"))

    def narrow_acl(self) -> None:
        # ZREM is the first that scripts do: one that is refused later breaks off half-way, which row 28 is about.
        order = ("ACL", "SETUSER", USER)
        self._during((*order, self._random.choice(("-zrem", "-evalsha"))), (*order, "+@all"))

    def _during(self, order: tuple[object, ...], cure: tuple[object, ...]) -> None:
        self._lab.redis.execute_command(*order)
        try:
            self._last(1.5)
        finally:
            self._lab.redis.execute_command(*cure)

    def be_busy(self) -> None:
        endless = threading.Thread(target=busy, args=(self._lab,))
        endless.start()
        self._last(1.0)
        with suppress(redis.RedisError):
            eventually(lambda: killed(self._lab), "SCRIPT KILL")
        endless.join(10)
