"""Faults between daemon and Redis: connections cut, requests and replies lost, late or doubled, a partition."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from jobqd.scripts import script
from tests.fault.laboratory import Laboratory
from tests.fault.load import LOAD
from tests.fault.proxy import Proxy, proxy
from tests.fault.scenes import wait_until_it_sweeps
from tests.support.waiting import eventually

STATE_CHANGES = ["claim", "settle", pytest.param("beat", marks=pytest.mark.long)]


@pytest.fixture
def net(lab: Laboratory) -> Iterator[Proxy]:
    with proxy(lab.server.socket) as made:
        yield made


def others(lab: Laboratory) -> list[str]:
    """Return the ids of all connections but that of the test."""
    me = str(lab.redis.client_id())
    return [client["id"] for client in lab.redis.client_list() if client["id"] != me]


@pytest.mark.parametrize("kind", ["normal", pytest.param("pubsub", marks=pytest.mark.long)])
@pytest.mark.each_redis
def test_row_11_connections_cut_at_10_hz(lab: Laboratory, kind: str) -> None:
    daemon = lab.start()
    lab.wait_ended(lab.put(5))
    before = len(others(lab))
    lab.put(200, "effect", seconds="0.1")
    cut = 0
    while lab.ledger.count("end") < 205:
        cut += int(lab.redis.client_kill_filter(_type=kind, skipme=True))
        lab.hold(0.1)
    lab.wait_ended()
    eventually(lambda: len(others(lab)) <= before, f"{before} connections as before")
    lab.check(f"row 11 {kind}", f"{cut} connections killed at 10 Hz", duplicates=0)
    assert cut >= 5
    assert not daemon.of("job.refused")


@pytest.mark.each_redis
def test_row_11_connections_reset_whether_idle_or_not(lab: Laboratory, net: Proxy) -> None:
    daemon = lab.start(redis_url=net.url)
    for round_ in range(10):
        net.reset()
        lab.wait_ended(lab.put(2 * round_))
    lab.check("row 11 reset", "all connections reset (RST) 10 times", duplicates=0)
    assert not daemon.of("job.refused")
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", STATE_CHANGES)
@pytest.mark.each_redis
def test_row_12_reply_lost_after_execution(lab: Laboratory, net: Proxy, name: str) -> None:
    lab.start(redis_url=net.url, lease="1500ms")
    lab.wait_ended(lab.put(1))
    net.add("reply", script(name), times=5)
    lab.put(60, "effect", seconds="0.02")
    net.wait_hits("reply", 3 if name != "beat" else 2)
    lab.wait_ended()
    lab.check(f"row 12 {name} reply", f"{net.hits['reply']} replies lost after execution", duplicates=0)


@pytest.mark.parametrize("name", STATE_CHANGES)
@pytest.mark.each_redis
def test_row_12_late_second_copy_of_a_request(lab: Laboratory, net: Proxy, name: str) -> None:
    lab.start(redis_url=net.url, lease="1500ms")
    net.add("copy", script(name), times=20, delay=0.3)
    rounds = 0
    while rounds < 4 or net.hits["copy"] < 2:  # a beat is rarer than the other two
        lab.wait_ended(lab.put(15, "effect", seconds="0.05"))
        rounds += 1
    copies = net.hits["copy"]
    net.wait_hits("copy arrived", copies)
    lab.wait_ended(lab.put(1))
    lab.check(f"row 12 {name} copy", f"{copies} requests arrived twice, 0.3 s late", duplicates=0)


@pytest.mark.parametrize("kind", ["reply", "copy"])
@pytest.mark.each_redis
def test_row_12_enqueue_by_a_client(lab: Laboratory, net: Proxy, kind: str) -> None:
    lab.start()

    async def enqueue() -> None:
        async with lab.queue(net.url) as queue:
            for _ in range(20):
                net.add(kind, script("enqueue"), delay=0.3)
                handle = await queue.enqueue("effect")
                lab.acknowledged.add(handle.id)

    asyncio.run(enqueue())
    hits = net.hits[kind]
    if kind == "copy":
        net.wait_hits("copy arrived", hits)
    lab.wait_ended()
    lab.check(f"row 12 enqueue {kind}", f"{hits} of the client's enqueues hit", duplicates=0)
    assert len(lab.redis.keys(lab.keys.job("*"))) == len(lab.acknowledged) == 20
    assert hits == 20


@pytest.mark.long
@pytest.mark.parametrize("name", STATE_CHANGES)
def test_row_13_request_lost_with_its_connection(lab: Laboratory, net: Proxy, name: str) -> None:
    lab.start(redis_url=net.url, lease="1500ms")
    net.add("cut", script(name), times=5)
    lab.put(60, "effect", seconds="0.02")
    net.wait_hits("cut", 2)
    lab.wait_ended()
    lab.check(f"row 13 {name} cut", f"{net.hits['cut']} requests lost, connection reset", duplicates=0)


@pytest.mark.long
@pytest.mark.parametrize("name", STATE_CHANGES)
def test_row_13_request_lost_in_silence(lab: Laboratory, net: Proxy, name: str) -> None:
    lab.start(redis_url=net.url)
    lab.wait_ended(lab.put(1))
    net.add("request", script(name), times=2)
    began = time.monotonic()
    ids = lab.put(30, "effect", seconds="0.02")
    net.wait_hits("request")
    lab.wait_ended(ids)
    lab.outages.append(time.monotonic() - began)
    # Two requests in a row, each missed after 5 s.
    lab.check(f"row 13 {name} lost", "requests lost in silence, lease 15 s", duplicates=0, due=10, bound=1)


@pytest.mark.long
def test_row_13_half_closed_connections(lab: Laboratory, net: Proxy) -> None:
    lab.start(redis_url=net.url)
    lab.put(60, "effect", seconds="0.1")
    for round_ in range(3):
        lab.wait_started(10 + 15 * round_)
        net.half_close()
    lab.wait_ended()
    lab.check("row 13 half-closed", "every connection half-closed, 3 times", duplicates=0)


@pytest.mark.long
@pytest.mark.parametrize("which", ["all", "subscribed"])
@pytest.mark.each_redis
def test_row_13_half_open_connections(lab: Laboratory, net: Proxy, which: str) -> None:
    daemon = lab.start(redis_url=net.url)
    lab.wait_ended(lab.put(1))
    lab.put(8, "gated")
    lab.wait_started(9)
    net.wither(only_subscribed=which == "subscribed")
    lab.gates.open("gate")
    lab.outage_over()
    lab.wait_ended()
    # What is missed is an answer, after 5 s: that of a call, or of the question, asked every 5 s, whether all is well.
    injected = f"{which} connections dead without a sign"
    lab.check(f"row 13 half-open {which}", injected, duplicates=0, due=10, bound=1)
    lab.wait_ended(lab.put(1))
    assert not daemon.of("job.refused")


@pytest.mark.long
def test_row_13_latency_and_broken_packets(lab: Laboratory, net: Proxy) -> None:
    lab.start(redis_url=net.url, lease="2s")
    net.chop = True
    lab.wait_ended(lab.put(50))
    net.chop, net.delay = False, 0.1
    lab.wait_ended(lab.put(50))
    lab.check("row 13 slow", "packets split and merged; then 200 ms a round trip, lease 2 s", duplicates=0)


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.long)], ids=["lost", "delivered late"])
def test_row_14_one_of_two_daemons_partitioned(lab: Laboratory, net: Proxy, late: bool) -> None:
    first = lab.start("a", redis_url=net.url, lease="1s")
    second = lab.start("b", lease="1s")
    wait_until_it_sweeps(lab, second)
    second.signal(signal.SIGSTOP)
    lab.put(4, "by_turns")
    lab.put(4, "marks")
    lab.wait_started(8)
    eventually(lambda: lab.ledger.count("marked") == 4, "marks")
    second.signal(signal.SIGCONT)
    lab.hold(0.3)
    lab.fault()
    net.partition()
    lab.gates.open("run-1")
    # The others wait for the answer to their checkpoint, and end when they have it.
    eventually(lambda: lab.ledger.count("end") == 4, "4 results that nobody can take")
    lab.wait_started(16)
    eventually(lambda: lab.ledger.count("marked") == 8, "marks of the second runs")
    net.heal(deliver=late)
    lab.wait_refused(8)
    lab.gates.open("run-2")
    lab.wait_ended()
    lab.check(
        "row 14", f"one of two partitioned, lease 1 s, requests {'late' if late else 'lost'}", refused=8, duplicates=8,
        crashes=8, interruptions=0, due=1, bound=2,
    )  # fmt: skip
    eventually(lambda: len(first.of("job.refused")) + len(first.of("job.lost")) == 8, "8 lines of lost runs")


@pytest.mark.long
def test_row_24_a_subscriber_that_does_not_read(lab: Laboratory) -> None:
    lab.start()
    took = {"before": reporting(lab)}
    with socket.socket(socket.AF_UNIX) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(str(lab.server.socket))
        slow.sendall(b"PSUBSCRIBE *\r\n")
        eventually(lambda: lab.redis.pubsub_numpat() == 1, "the slow subscriber")
        noise(lab, megabytes=20)
        took["meanwhile"] = reporting(lab)
        assert lab.redis.pubsub_numpat() == 1
        # Beyond client-output-buffer-limit (32 MB) Redis ends it.
        noise(lab, megabytes=20)
        took["beyond"] = reporting(lab)
        eventually(lambda: lab.redis.pubsub_numpat() == 0, "the end of the slow subscriber")
    times = ", ".join(f"{seconds:.2f} s {when}" for when, seconds in took.items())
    lab.check("row 24", f"a subscriber that reads nothing; 16 reporting jobs in {times}", duplicates=0)
    assert max(took.values()) - took["before"] < 0.2 * LOAD, times


def reporting(lab: Laboratory) -> float:
    """Return how long jobs take that report progress a hundred times in half a second."""
    began = time.monotonic()
    lab.wait_ended(lab.put(16, "reports", times=100, pause=0.005))
    return time.monotonic() - began


def noise(lab: Laboratory, megabytes: int) -> None:
    """Publish so much on a channel of progress."""
    for _ in range(100 * megabytes):
        lab.redis.publish("job:progress:noise", "x" * 10_000)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "calls"),
    [("claim", 80), ("settle", 80), ("promote", 40), ("progress", 30), ("beat", 12), ("checkpoint", 16), ("lapsed", 8)],
)
@pytest.mark.each_redis
def test_row_28_an_error_at_every_call_of_a_script(lab: Laboratory, net: Proxy, name: str, calls: int) -> None:
    daemon = lab.start(redis_url=net.url, lease="600ms", concurrency=8)
    lab.wait_ended(lab.put(1))
    net.add("error", script(name), times=calls)
    flaky: set[str] = set()
    snoozed: set[str] = set()
    while net.hits["error"] < calls:
        flaky.update(lab.put(3, "flaky"))
        snoozed.update(lab.put(3, "snoozes"))
        marking = lab.put(3, "marks", seconds="0.01")
        lab.wait_ended(lab.put(3, "reports", times=3) + marking + list(flaky))
        # A handler is told that its checkpoint was not saved, and these fail then.
        flaky.update(marking if name == "checkpoint" else ())
    lab.wait_ended()
    # A job whose end broke off just before its TTL gets it from the slow walk.
    keys = [lab.keys.job(job_id) for job_id in lab.acknowledged]
    eventually(lambda: all(lab.redis.ttl(key) > 0 for key in keys), "a TTL for every ended job", 30)
    # Counters come last in a script and are for people: those of a call that broke off may be missing. A claim that
    # broke off right after its first write leaves leases of nobody; they lapse, which is charged as a crash.
    lab.check(
        f"row 28 {name}", f"{calls} times {name} broke off, each time one command later",
        without={"claim": "CA", "settle": "C"}.get(name, ""),
        duplicates=0, expected_to_fail=frozenset(flaky), snoozed=frozenset(snoozed),
    )  # fmt: skip
    assert not daemon.of("job.refused")
    assert daemon.stop() == 0
