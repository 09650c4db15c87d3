"""Which node serves a queue where the URL names no single server: asked of Sentinels, or of a Cluster's nodes.

Nothing here does I/O. A search is a generator: it yields questions, is sent their replies, has what failed thrown
into it, and returns the node. Asyncio and threads share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import crc_hqx
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

from redis import exceptions as redis_errors

from jobqd.errors import StoreFault
from jobqd.store.faults import RAISED, fault_of, reason_of

SLOTS = 16384


class Node(NamedTuple):
    """The address of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Question(NamedTuple):
    """One command for one node, on a connection of its own."""

    node: Node
    command: tuple[str, ...]


Search = Generator[Question, Any, Node]


class UnknownError(Exception):
    """A node answered, and its answer names no server."""


_FAILED: tuple[type[Exception], ...] = (*RAISED, UnknownError)


class Directory(ABC):
    """Those who can be asked, in turn, for the node to talk to. Threads may share one: its order is only a hint."""

    admission: tuple[str, ...] | None = None
    """The command that the node found must answer to the satisfaction of `admit`."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = tuple(nodes)

    def search(self) -> Search:
        """Ask one after the other; whoever answered last time is first. Raises redis-py's ConnectionError."""
        failures, denied = [], None
        for node in self._nodes:
            try:
                reply = yield Question(node, self.command)
                found = self.read(node, reply)
            except _FAILED as error:
                failures.append(f"{node}: {reason_of(error, node) or 'no answer in time'}")
                if fault_of(error) in (StoreFault.DENIED, StoreFault.TLS):
                    denied = error
            else:
                self._nodes = (node, *(other for other in self._nodes if other != node))
                return found
        # The fault of an error is that of its cause: who was refused must not look for a network problem.
        raise redis_errors.ConnectionError(f"{self.complaint} ({'; '.join(failures)})") from denied

    def doubt(self) -> None:
        """Ask another first next time: what this one named did not serve."""
        self._nodes = (*self._nodes[1:], *self._nodes[:1])

    def admit(self, node: Node, reply: Any) -> None:  # noqa: B027 - whoever asks nothing has nothing to judge
        """Judge the node found by its answer to `admission`. Raises redis-py's ReadOnlyError."""

    @property
    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """What each is asked."""

    @property
    @abstractmethod
    def complaint(self) -> str:
        """What to say when nobody knows."""

    @abstractmethod
    def read(self, asked: Node, reply: Any) -> Node:
        """Return the node that a reply names. Raises UnknownError."""


class Sentinels(Directory):
    """Sentinels that watch over a master of this name.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    admission = ("ROLE",)

    def __init__(self, nodes: Iterable[Node], service: str) -> None:
        super().__init__(nodes)
        self._service = service

    @property
    def command(self) -> tuple[str, ...]:
        """What each is asked."""
        return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)

    @property
    def complaint(self) -> str:
        """What to say when nobody knows."""
        return (
            f'no Sentinel names a master "{self._service}"; look at the hosts and the name in redis_url, and at '
            "sentinel_password after its question mark if the Sentinels ask for one"
        )

    def read(self, asked: Node, reply: Any) -> Node:
        """Return the master. Raises UnknownError."""
        if not isinstance(reply, list) or len(reply) != 2:
            raise UnknownError("watches over no master of that name")
        return Node(str(reply[0]), int(reply[1]))

    def admit(self, node: Node, reply: Any) -> None:
        """Make sure that it is a master: a Sentinel may not have heard of a fail-over yet. Raises ReadOnlyError."""
        role = reply[0] if isinstance(reply, list) and reply else reply
        if role != "master":
            raise redis_errors.ReadOnlyError(
                f"{node}, which Sentinel names as the master, is a {role}: a fail-over is under way"
            )


class Cluster(Directory):
    """Nodes of one Redis Cluster, any of which can tell who owns a slot; it learns of further nodes as it asks.

    Source: https://redis.io/docs/latest/commands/cluster-slots/ (deprecated since 7.0 for CLUSTER SHARDS, which 6.2
    does not have).
    """

    def __init__(self, nodes: Iterable[Node], slot: int) -> None:
        super().__init__(nodes)
        self._slot = slot

    @property
    def command(self) -> tuple[str, ...]:
        """What each is asked."""
        return ("CLUSTER", "SLOTS")

    @property
    def complaint(self) -> str:
        """What to say when nobody knows."""
        return f"no node tells who serves slot {self._slot}, which key_prefix falls into"

    def read(self, asked: Node, reply: Any) -> Node:
        """Return the master of the slot. Raises UnknownError."""
        ranges = reply if isinstance(reply, list) else []
        learned = [_node(asked, entry) for first, last, *entries in ranges for entry in entries]
        known = dict.fromkeys([*self._nodes, *(node for node in learned if node is not None)])
        self._nodes = tuple(known)
        for first, last, master, *_ in ranges:
            if first <= self._slot <= last:
                node = _node(asked, master)
                if node is None:
                    raise UnknownError("names no host for it: set cluster-announce-hostname on every node")
                return node
        raise UnknownError("says that nobody serves it")


def _node(asked: Node, entry: Sequence[Any]) -> Node | None:
    """Return a node as CLUSTER SLOTS names it; no host means the one that was asked, "?" one that is not known."""
    host, port = entry[0], int(entry[1])
    return None if host == "?" else Node(str(host) if host else asked.host, port)


def hash_tag(key: str) -> str | None:
    """Return what stands between the first { and the next } of a key, None if there is nothing.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ (hash tags).
    """
    _, brace, rest = key.partition("{")
    tag, closing, _ = rest.partition("}")
    return tag if brace and closing and tag else None


def slot_of(tag: str) -> int:
    """Return the hash slot of a tag: CRC16 (XMODEM) modulo 16384 (the same page, key distribution model)."""
    return crc_hqx(tag.encode("utf-8", "surrogateescape"), 0) % SLOTS
