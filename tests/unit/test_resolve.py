"""Who is asked for the node, in which order, and what their answers mean: no server is needed to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions

from jobqd.errors import StoreFault
from jobqd.store.faults import fault_of
from jobqd.store.resolve import Cluster, Directory, Node, Sentinels, hash_tag, slot_of

A, B, C, D = (Node("10.0.0.1", port) for port in (1, 2, 3, 4))


def found(directory: Directory, answer: Callable[[Node], Any]) -> tuple[Node, list[Node]]:
    """Return the node that a search finds, and who was asked; an answer that is an exception is thrown."""
    asked: list[Node] = []
    search = directory.search()
    try:
        question = next(search)
        while True:
            asked.append(question.node)
            reply = answer(question.node)
            question = search.throw(reply) if isinstance(reply, Exception) else search.send(reply)
    except StopIteration as end:
        return end.value, asked


def of(replies: dict[Node, Any]) -> Callable[[Node], Any]:
    return lambda node: replies.get(node, ConnectionRefusedError("refused"))


def test_sentinels_are_asked_in_turn_until_one_knows() -> None:
    sentinels = Sentinels([A, B, C], "films")
    assert next(sentinels.search()).command == ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "films")
    assert found(sentinels, of({B: None, C: ["10.0.0.9", "6379"]})) == (Node("10.0.0.9", 6379), [A, B, C])
    # Whoever knew is asked first from now on.
    assert found(sentinels, of({C: ["10.0.0.9", "6379"]})) == (Node("10.0.0.9", 6379), [C])


def test_one_whose_word_did_not_hold_is_asked_last() -> None:
    sentinels = Sentinels([A, B], "films")
    everybody = of({A: ["10.0.0.8", "1"], B: ["10.0.0.9", "1"]})
    assert found(sentinels, everybody)[0] == Node("10.0.0.8", 1)
    sentinels.doubt()
    assert found(sentinels, everybody) == (Node("10.0.0.9", 1), [B])


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError("refused"), StoreFault.DOWN),
        (TimeoutError(), StoreFault.DOWN),
        (exceptions.ResponseError("ERR unknown command 'SENTINEL'"), StoreFault.DOWN),
        (exceptions.AuthenticationError("invalid username-password pair"), StoreFault.DENIED),
    ],
)
def test_when_nobody_knows_every_answer_is_told(error: Exception, fault: StoreFault) -> None:
    with pytest.raises(exceptions.ConnectionError) as raised:
        found(Sentinels([A, B], "films"), of({A: error, B: None}))
    assert all(text in str(raised.value) for text in ("films", str(A), str(B), "no master of that name"))
    assert (str(error) or "no answer in time") in str(raised.value)
    assert fault_of(raised.value) is fault


def test_only_a_master_is_admitted() -> None:
    sentinels = Sentinels([A], "films")
    assert sentinels.admission == ("ROLE",)
    sentinels.admit(B, ["master", 0, []])
    with pytest.raises(exceptions.ReadOnlyError, match=str(B)):
        sentinels.admit(B, ["slave", "10.0.0.1", 1, "connected", 0])


def slots(*ranges: tuple[int, int, Node, Node]) -> list[Any]:
    return [[low, high, [m.host, m.port, "id", []], [r.host, r.port, "id", []]] for low, high, m, r in ranges]


def test_a_cluster_names_the_master_of_the_slot() -> None:
    answer = slots((0, 99, A, C), (100, 16383, B, D))
    assert found(Cluster([A], 99), of({A: answer}))[0] == A
    assert found(Cluster([A], 100), of({A: answer}))[0] == B
    assert found(Cluster([A], 16383), of({A: answer}))[0] == B


def test_nodes_that_were_heard_of_are_asked_when_those_in_the_url_are_gone() -> None:
    nodes = Cluster([A], 5)
    assert found(nodes, of({A: slots((0, 16383, B, C))}))[0] == B
    assert found(nodes, of({C: slots((0, 16383, C, D))})) == (C, [A, B, C])


def test_a_node_without_a_host_is_the_one_that_was_asked() -> None:
    for empty in ("", None):
        assert found(Cluster([A], 5), of({A: [[0, 16383, [empty, 7, "id"]]]}))[0] == Node(A.host, 7)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([[0, 16383, ["?", 7, "id"]]], "cluster-announce-hostname"),
        (slots((0, 4, A, B)), "nobody serves it"),
        ([], "nobody serves it"),
        (None, "nobody serves it"),
    ],
)
def test_a_cluster_that_cannot_tell(answer: Any, words: str) -> None:
    with pytest.raises(exceptions.ConnectionError, match=words) as raised:
        found(Cluster([A], 5), of({A: answer}))
    assert "slot 5" in str(raised.value)


@pytest.mark.parametrize(
    ("key", "tag"),
    [("{films}:job_queue", "films"), ("a{b}c{d}", "b"), ("{}{a}", None), ("films:", None), ("{a", None), ("}a{", None),
     ("{{a}}", "{a")],
)  # fmt: skip
def test_the_hash_tag_of_a_key(key: str, tag: str | None) -> None:
    assert hash_tag(key) == tag


def test_slots_are_those_of_redis() -> None:
    # The check value of the specification (CRC16 of "123456789" is 0x31C3), and what CLUSTER KEYSLOT answers.
    assert (slot_of("123456789"), slot_of("foo"), slot_of("user1000")) == (12739, 12182, 3443)


def test_addresses_read_as_in_a_url() -> None:
    assert (str(Node("h", 1)), str(Node("::1", 2))) == ("h:1", "[::1]:2")
