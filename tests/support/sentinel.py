"""A master, its replica, and three Sentinels that watch over them: real processes, ended by their own ids."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support.tcp import TcpServer, free_port
from tests.support.tls import Identity
from tests.support.waiting import eventually

SERVICE = "films"
PASSWORD = "servers-own-secret"
WATCHWORD = "sentinels-own-secret"
_QUORUM = 2
_DOWN_AFTER = 500


class Sentinel:
    """One redis-sentinel process. It knows of the others from its file: introductions would take seconds."""

    def __init__(self, binary: Path, directory: Path, number: int, tls: Identity | None = None) -> None:
        self._binary = binary
        self._tls = tls
        self._directory = directory / f"sentinel{number}"
        self.port = free_port()
        self.id = f"{number:040x}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, master: int, replica: int, others: list[Sentinel]) -> None:
        self._directory.mkdir()
        file = self._directory / "sentinel.conf"
        lines = [
            f"port {self.port}", "bind 127.0.0.1", f"dir {self._directory}", f"logfile {self._directory}/log",
            f"requirepass {WATCHWORD}", f"sentinel sentinel-pass {WATCHWORD}", f"sentinel myid {self.id}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} {_QUORUM}", f"sentinel auth-pass {SERVICE} {PASSWORD}",
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER}", f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel known-replica {SERVICE} 127.0.0.1 {replica}",
            *(f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other.port} {other.id}" for other in others),
        ]  # fmt: skip
        if self._tls is not None:
            lines += [f"{name} {value}" for name, value in self._tls.settings(self.port).items()]
        file.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [str(self._binary), str(file), "--sentinel"], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def client(self) -> redis.Redis:
        more: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self._tls.authority)} if self._tls else {}
        return redis.Redis("127.0.0.1", self.port, password=WATCHWORD, decode_responses=True, **more)

    def freeze(self) -> None:
        """Make it answer no more, its port staying open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Watched:
    """What the Sentinels watch over."""

    def __init__(self, master: TcpServer, replica: TcpServer, sentinels: list[Sentinel]) -> None:
        self.master, self.replica, self.sentinels = master, replica, sentinels

    @property
    def url(self) -> str:
        """The URL for jobqd, in which the Sentinels' own password stands."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0?sentinel_password={WATCHWORD}"

    def client(self, server: TcpServer) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(server.socket), password=PASSWORD, decode_responses=True)

    def wait_until_replicated(self) -> None:
        """Return when the replica has what was written to the master so far."""
        with self.client(self.master) as client:
            offset = int(client.info("replication")["master_repl_offset"])
        with self.client(self.replica) as client:
            eventually(lambda: int(client.info("replication")["slave_repl_offset"]) >= offset, "the replica has it all")

    def wait_for_failover(self) -> float:
        """Return the seconds until the replica was the master."""
        began = time.monotonic()
        with self.client(self.replica) as client:
            eventually(lambda: client.info("replication")["role"] == "master", "a fail-over", timeout=20)
        return time.monotonic() - began


@contextmanager
def watched(
    binary: Path, directory: Path, tls: Identity | None = None, *, replica_environ: Mapping[str, str] | None = None
) -> Iterator[Watched]:
    """Everything running and knowing of each other; with `tls`, none of them speaks without it."""
    common = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        master, replica = TcpServer(binary, *common), TcpServer(binary, *common)
        replica.environ.update(replica_environ or {})
        for server in (master, replica):
            stack.callback(server.close)
        master.start(*_arguments(master, tls))
        replica.start(*_arguments(replica, tls), "--replicaof", "127.0.0.1", str(master.port))
        sentinels = [Sentinel(binary, directory, number, tls) for number in (1, 2, 3)]
        for sentinel in sentinels:
            stack.callback(sentinel.close)
            sentinel.start(master.port, replica.port, [other for other in sentinels if other is not sentinel])
        made = Watched(master, replica, sentinels)
        with made.client(replica) as client:
            eventually(lambda: client.info("replication").get("master_link_status") == "up", "replication")
        for sentinel in sentinels:
            eventually(lambda of=sentinel: _ready(of), "a Sentinel that knows of all")
        yield made


def _arguments(server: TcpServer, tls: Identity | None) -> list[str]:
    return (
        [word for name, value in tls.settings(server.port).items() for word in (f"--{name}", str(value))] if tls else []
    )


def _ready(sentinel: Sentinel) -> bool:
    try:
        with sentinel.client() as client:
            facts = client.sentinel_master(SERVICE)
            replicas = client.sentinel_slaves(SERVICE)
    except redis.RedisError:
        return False
    return facts["num-other-sentinels"] == 2 and not facts["is_sdown"] and any(not one["is_sdown"] for one in replicas)
