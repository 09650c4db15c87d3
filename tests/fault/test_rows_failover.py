"""Row 21: another Redis takes over, behind Sentinels or in a Cluster."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobqd.keys import Keys
from jobqd.store.resolve import slot_of
from tests.fault.handlers import HANDLERS
from tests.fault.laboratory import Laboratory, laboratory_on
from tests.redis_server import binaries
from tests.support.cluster import Cluster, cluster
from tests.support.sentinel import PASSWORD, Watched, watched
from tests.support.tls import Authority
from tests.support.waiting import eventually
from tests.support.workshop import workshop

pytestmark = pytest.mark.long


@pytest.fixture
def films(version: str, tmp_path: Path) -> Iterator[Watched]:
    with watched(binaries()[version], tmp_path) as made:
        yield made


@pytest.fixture
def guarded(films: Watched, tmp_path: Path) -> Iterator[Laboratory]:
    """A laboratory on a master that Sentinels watch over; it looks there until `fail_over`."""
    with laboratory_on(films.master, tmp_path) as lab:
        look_at(lab, films.client(films.master))
        yield lab


def look_at(lab: Laboratory, client: redis.Redis) -> None:
    """Let a laboratory read and write here from now on."""
    lab.shop.producer.redis.close()
    lab.shop.producer.redis = client


def fail_over(lab: Laboratory, films: Watched) -> None:
    """End the master; from now on the laboratory looks at the one that was its replica."""
    lab.fault()
    lab.outage()
    films.master.kill()
    films.wait_for_failover()
    look_at(lab, films.client(films.replica))


@pytest.mark.each_redis
def test_row_21_a_failover_with_sentinel(guarded: Laboratory, films: Watched) -> None:
    lab = guarded
    settings = {"redis_url": films.url, "redis_password": PASSWORD, "lease": "1s"}
    daemons = [lab.start(instance, **settings) for instance in "ab"]
    lab.put(24, "gated")
    lab.wait_started(24)
    films.wait_until_replicated()
    fail_over(lab, films)
    lab.gates.open("gate")
    lab.outage_over()
    lab.wait_ended()
    lab.check("row 21", "the master killed, its replica takes over, lease 1 s", duplicates=0, bound=4)
    assert not any(daemon.of("job.refused") + daemon.of("job.recovered") for daemon in daemons)


@pytest.mark.each_redis
def test_row_21_claims_lost_in_a_failover(guarded: Laboratory, films: Watched) -> None:
    lab = guarded
    settings = {"redis_url": films.url, "redis_password": PASSWORD, "lease": "1s", "concurrency": 8}
    first, second = lab.start("a", **settings), lab.start("b", **settings)
    for daemon in (first, second):
        daemon.signal(signal.SIGSTOP)
    lab.put(8, "gated")
    films.wait_until_replicated()
    # The claims never reach the replica: there the jobs are ready, and are claimed again under the same fences.
    films.replica.freeze()
    lab.redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
    first.signal(signal.SIGCONT)
    lab.wait_started(8)
    first.signal(signal.SIGSTOP)
    films.master.kill()
    films.replica.thaw()
    fail_over(lab, films)
    second.signal(signal.SIGCONT)
    lab.wait_started(16)
    lab.gates.open("gate")
    first.signal(signal.SIGCONT)
    lab.wait_ended()
    lab.check(
        "row 21 lost",
        "fail-over to a replica that missed 8 claims",
        refused=8,
        duplicates=8,
        crashes=0,
        interruptions=0,
        lossy=True,
        bound=4,
    )
    for job_id in lab.acknowledged:
        assert json.loads(lab.redis.hget(lab.keys.job(job_id), "result")) == {"fence": 1, "pid": second.pid}
    eventually(lambda: len(first.of("job.refused")) == 8, "8 refused results of the first")


def test_row_21_a_failover_with_tls_all_through(version: str, tmp_path: Path) -> None:
    binary = binaries()[version]
    if b"tls-cert-file" not in binary.read_bytes():
        pytest.skip(f"{binary} was built without TLS")
    identity = Authority(tmp_path / "ca").identity("redis", "IP:127.0.0.1")
    with watched(binary, tmp_path, identity) as films, laboratory_on(films.master, tmp_path) as lab:
        look_at(lab, films.client(films.master))
        lab.start(redis_url=films.url, redis_password=PASSWORD, tls_ca=identity.authority, lease="1s")
        lab.put(16, "gated")
        lab.wait_started(16)
        films.wait_until_replicated()
        fail_over(lab, films)
        lab.gates.open("gate")
        lab.outage_over()
        lab.wait_ended()
        lab.check("row 21 TLS", "fail-over by Sentinels, TLS between all of them", duplicates=0, bound=4)


TAG = "films"


@pytest.fixture
def nodes(version: str) -> Iterator[Cluster]:
    """Three masters, and a replica of the one that serves the queue."""
    with cluster(binaries()[version]) as made:
        made.add_replica(slot_of(TAG))
        yield made


@pytest.mark.each_redis
def test_row_21_a_failover_in_a_cluster(nodes: Cluster, tmp_path: Path) -> None:
    number = nodes.owner(slot_of(TAG))
    master, replica = nodes.nodes[number], nodes.nodes[-1]
    with workshop(master, tmp_path, HANDLERS, Keys(f"{{{TAG}}}:")) as shop:
        lab = Laboratory(shop)
        others = [node for node in nodes.nodes if node is not master]
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in others)
        daemons = [lab.start(instance, redis_url=url, lease="1s") for instance in "ab"]
        lab.put(24, "gated")
        lab.wait_started(24)
        nodes.wait_until_replicated(number)
        lab.fault()
        lab.outage()
        master.kill()
        eventually(lambda: nodes.clients[-1].info("replication")["role"] == "master", "a fail-over", 30)
        look_at(lab, redis.Redis(unix_socket_path=str(replica.socket), decode_responses=True))
        eventually(lambda: nodes.serves(len(nodes.nodes) - 1, slot_of(TAG)), "the new master serves the slot", 30)
        lab.gates.open("gate")
        lab.outage_over()
        lab.wait_ended()
        lab.check("row 21 cluster", "a master of the cluster killed, its replica takes over", duplicates=0, bound=4)
        assert not any(daemon.of("job.refused") + daemon.of("job.recovered") for daemon in daemons)
