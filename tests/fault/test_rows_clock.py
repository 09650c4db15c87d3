"""Row 31, beyond those of the plan: the clock by which all leases are judged is not the one it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.laboratory import Laboratory, laboratory_on, server_for
from tests.fault.test_rows_failover import fail_over, look_at
from tests.redis_server import binaries
from tests.support.sentinel import PASSWORD, watched
from tests.support.skew import Skew, compiler
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine, so no clock of Redis's own"),
]

MINUTE = 60


def a_whole_lease_of_renewals(lab: Laboratory, lease: float) -> None:
    """Return right after a renewal, when all daemons may judge leases; the next one is a third of a lease off."""
    lab.hold(lease + lease / 3)
    (job_id,) = lab.redis.zrange(lab.keys.active, 0, 0)
    renewed_until = lab.redis.zscore(lab.keys.active, job_id)
    eventually(lambda: lab.redis.zscore(lab.keys.active, job_id) != renewed_until, "a renewal")


@pytest.mark.each_redis
@pytest.mark.parametrize(("before", "after"), [(0, MINUTE), (MINUTE, 0)], ids=["on", "back"])
def test_row_31_the_clock_of_redis_steps(version: str, tmp_path: Path, before: int, after: int) -> None:
    skew, lease = Skew(tmp_path, before), 6.0
    server = server_for(version)
    server.environ.update(skew.environ)
    with server, laboratory_on(server, tmp_path) as lab:
        daemons = [lab.start(instance, lease=f"{lease}s") for instance in "ab"]
        lab.put(16, "gated")
        lab.wait_started(16)
        a_whole_lease_of_renewals(lab, lease)
        skew.set(after)
        lab.hold(lease)
        lab.gates.open("gate")
        lab.wait_ended()
        lab.check("row 31", f"the clock of Redis steps by {after - before:+d} s, lease {lease:g} s", duplicates=0)
        assert not any(daemon.of("job.refused") + daemon.of("job.recovered") for daemon in daemons)


@pytest.mark.each_redis
def test_row_31_a_failover_to_a_clock_that_is_ahead(version: str, tmp_path: Path) -> None:
    # Longer between two renewals than a fail-over takes: who notices it by a renewal that fails sweeps no more.
    skew, lease = Skew(tmp_path, MINUTE), 15.0
    with (
        watched(binaries()[version], tmp_path, replica_environ=skew.environ) as films,
        laboratory_on(films.master, tmp_path) as lab,
    ):
        look_at(lab, films.client(films.master))
        settings = {"redis_url": films.url, "redis_password": PASSWORD, "lease": f"{lease}s"}
        daemons = [lab.start(instance, **settings) for instance in "abc"]
        lab.put(16, "gated")
        lab.wait_started(16)
        a_whole_lease_of_renewals(lab, lease)
        films.wait_until_replicated()
        fail_over(lab, films)
        lab.hold(lease)
        lab.gates.open("gate")
        lab.wait_ended()
        lab.check("row 31 fail-over", f"a new master whose clock is {MINUTE} s ahead, lease {lease:g} s", duplicates=0)
        assert not any(daemon.of("job.refused") + daemon.of("job.recovered") for daemon in daemons)
