"""Faults of daemons: of the one whose life is worth nothing, the victim."""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random

from tests.fault.laboratory import Laboratory
from tests.fault.workload import Workload
from tests.support.daemon import Daemon
from tests.support.waiting import eventually

BLOCK_LIMIT = 4.0
"""`block_limit` of the victim in seconds: more than it is ever paused for."""
_PATIENCE = 30.0


class DaemonStrikes:
    """Each method is one fault, repaired when it returns."""

    def __init__(
        self, lab: Laboratory, random: Random, workload: Workload, victim: Callable[[], Daemon], steady: Daemon
    ) -> None:
        self._lab, self._random, self._workload = lab, random, workload
        self._start, self._steady = victim, steady
        self._victim = victim()
        self.all = (
            self.kill, self.kill_for_long, self.pause, self.stop, self.stop_twice, self.hang_up, self.poison,
            self.block, self.block_for_ever,
        )  # fmt: skip

    def _last(self, longest: float) -> None:
        self._lab.hold(self._random.uniform(0.1, longest))

    def _ends(self, status: int) -> None:
        assert self._victim.wait(_PATIENCE) == status, self._victim.log[-3000:]
        self._victim = self._start()

    def kill(self) -> None:
        self._victim.kill()
        self._victim = self._start()

    def kill_for_long(self) -> None:
        """Let the other one take its jobs over when their leases have run out."""
        self._victim.kill()
        self._lab.hold(2.5)
        self._victim = self._start()

    def pause(self) -> None:
        self._victim.signal(signal.SIGSTOP)
        self._last(2.5)
        self._victim.signal(signal.SIGCONT)

    def stop(self) -> None:
        self._victim.signal(signal.SIGTERM)
        self._ends(0)

    def stop_twice(self) -> None:
        self._victim.signal(signal.SIGTERM)
        self._last(0.3)
        self._victim.signal(signal.SIGTERM)
        self._ends(0)

    def hang_up(self) -> None:
        for daemon in (self._victim, self._steady):
            for _ in range(self._random.randint(1, 20)):
                daemon.signal(signal.SIGHUP)

    def poison(self) -> None:
        """End two daemons, or more, and be dead-lettered by what the last one's process does."""
        (job_id,) = self._lab.put(1, "dies", how=self._random.choice(("abort", "segfault")))
        self._workload.failing.add(job_id)

        def over() -> bool:
            if self._victim.ended:
                assert self._victim.wait() in (-signal.SIGABRT, -signal.SIGSEGV), self._victim.log[-3000:]
                self._victim = self._start()
            return self._lab.redis.hget(self._lab.keys.job(job_id), "status") == "failed"

        eventually(over, f"the end of {job_id}", 2 * _PATIENCE)

    def _blocks(self) -> str:
        self._lab.gates.close("unblock")
        (job_id,) = self._lab.put(1, self._random.choice(("blocks", "spins")))
        key = self._lab.keys.job(job_id)
        eventually(lambda: self._lab.redis.hget(key, "status") == "processing", f"a run of {job_id}", _PATIENCE)
        return job_id

    def block(self) -> None:
        job_id = self._blocks()
        self._last(BLOCK_LIMIT / 2)
        self._lab.gates.open("unblock")
        self._lab.wait_ended([job_id])

    def block_for_ever(self) -> None:
        job_id = self._blocks()
        self._victim.wait(_PATIENCE)
        self._lab.gates.open("unblock")
        self._ends(70)
        self._lab.wait_ended([job_id])
