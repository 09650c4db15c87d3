"""A real Redis Cluster of three masters on loopback, put together by hand, with a slot that can be moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from tests.support.tcp import TcpServer
from tests.support.waiting import eventually

SLOTS = 16384
SETTINGS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")


class Cluster:
    """Its nodes, each with a plain client: redis-py's own cluster client would hide what is tested."""

    def __init__(self, nodes: list[TcpServer]) -> None:
        self.nodes = nodes
        self.clients = [redis.Redis(port=node.port, decode_responses=True) for node in nodes]
        self._more = ExitStack()

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def id(self, node: int) -> str:
        return str(self.clients[node].execute_command("CLUSTER", "MYID"))

    def owner(self, slot: int) -> int:
        """Return the number of the node that owns a slot, as it says itself."""
        (found,) = [n for n, client in enumerate(self.clients) if _owns(client, slot)]
        return found

    def form(self) -> None:
        """Introduce the nodes to each other and divide the slots among them."""
        first = self.nodes[0]
        share = SLOTS // len(self.nodes) + 1
        for number, client in enumerate(self.clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(number * share, min(SLOTS, (number + 1) * share))
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        for client in self.clients:
            eventually(lambda of=client: _whole(of, len(self.nodes)), "the cluster is whole")

    def add_replica(self, slot: int) -> None:
        """Give the owner of a slot a replica, the last of the nodes from then on, that takes over when it dies."""
        owner = self.owner(slot)
        node = TcpServer(self.nodes[0].binary, *SETTINGS)
        self._more.callback(node.close)
        self.nodes.append(node.start())
        client = redis.Redis(port=node.port, decode_responses=True)
        self.clients.append(client)
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[owner].port)
        for each in self.clients:
            eventually(lambda of=each: _whole(of, len(self.nodes)), "the cluster knows its new node")
        client.execute_command("CLUSTER", "REPLICATE", self.id(owner))
        eventually(lambda: client.info("replication").get("master_link_status") == "up", "replication")

    def wait_until_replicated(self, number: int) -> None:
        """Return when the replica has what was written to its master so far."""
        offset = int(self.clients[number].info("replication")["master_repl_offset"])
        replica = self.clients[-1]
        eventually(lambda: int(replica.info("replication")["slave_repl_offset"]) >= offset, "the replica has it all")

    def serves(self, number: int, slot: int) -> bool:
        """Whether a node owns a slot, as it says itself, and is in a state to serve it."""
        client = self.clients[number]
        return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")) and _owns(client, slot)

    def start_move(self, slot: int, to: int) -> None:
        """Let a slot begin to move: its keys go over one by one."""
        source = self.owner(slot)
        self.clients[to].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self.clients[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(to))

    def move_keys(self, slot: int, to: int, *keys: str) -> None:
        """Move these keys of a slot, or all that are left."""
        source = self.clients[self.owner(slot)]
        port = self.nodes[to].port
        while names := keys or source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *names)
            if keys:
                return

    def end_move(self, slot: int, to: int) -> None:
        """Tell every node of the new owner, itself first."""
        owner = self.id(to)
        for client in sorted(self.clients, key=lambda client: client is not self.clients[to]):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self._more.close()


def _whole(client: redis.Redis, size: int) -> bool:
    lines = str(client.execute_command("CLUSTER", "INFO")).split()
    return {"cluster_state:ok", f"cluster_known_nodes:{size}", f"cluster_slots_ok:{SLOTS}"} <= set(lines)


def _owns(client: redis.Redis, slot: int) -> bool:
    me = str(client.execute_command("CLUSTER", "MYID"))
    ranges = client.execute_command("CLUSTER", "SLOTS")
    return any(first <= slot <= last and master[2] == me for first, last, master, *_ in ranges)


@contextmanager
def cluster(binary: Path) -> Iterator[Cluster]:
    """Three nodes that serve every slot."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(3):
            node = TcpServer(binary, *SETTINGS)
            stack.callback(node.close)
            nodes.append(node.start())
        made = Cluster(nodes)
        stack.callback(made.close)
        made.form()
        yield made
