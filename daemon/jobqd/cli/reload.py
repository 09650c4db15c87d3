"""`jobqd reload`: ask the running daemon to read its configuration again, and wait for what comes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

from jobqd.cli.chosen import Server
from jobqd.errors import EX_UNAVAILABLE, ConfigError
from jobqd.keys import Keys
from jobqd.lockfile import place_of, socket_path
from jobqd.settings import Settings, load
from jobqd.settings.installed import Unit
from jobqd.settings.model import default_runtime_dir
from jobqd.socketfile import connect, peer

_PATIENCE = 60.0


class _Nobody(Exception):  # noqa: N818 - says what was found
    """No daemon listens that is surely meant; the message says which, where, and what to look at."""


def reload(
    values: dict[str, str], config: Path | None, unit: str | None = None, environ: Mapping[str, str] = os.environ,
    server: Server | None = None,
) -> int:  # fmt: skip
    """Reload, tell the difference, and return the exit status: 0, 69 if no daemon answers, 78 if it refused.

    As ExecReload= of a systemd unit, the daemon is the unit's ($MAINPID), and it follows the environment that systemd
    has read for this command; else it is that of the unit `jobqd@UNIT`, or of the unit whose configuration is read
    here, or the one that these settings name. Raises ConfigError for a configuration that cannot be used.
    """
    process = int(environ["MAINPID"]) if environ.get("MAINPID", "").isdecimal() else None
    try:
        if process is not None:
            connection = _of_process(_runtime_dir(values, config, environ), process)
        else:
            connection = _by_hand(values, config, unit, environ, server or Server())
    except _Nobody as nobody:
        print(f"jobqd: {nobody}", file=sys.stderr)
        return EX_UNAVAILABLE
    variables = {name: value for name, value in environ.items() if name.startswith("JOBQD_")}
    try:
        with connection:
            answer = _ask(connection, {} if process is None else {"environ": variables})
    except (OSError, ValueError) as error:
        print(f"jobqd: the daemon does not answer: {error or type(error).__name__}", file=sys.stderr)
        return EX_UNAVAILABLE
    return _tell(answer)


def _runtime_dir(values: dict[str, str], config: Path | None, environ: Mapping[str, str]) -> Path:
    """Return where a unit's daemon listens.

    The settings are for the daemon to judge: systemd 252 does not let the commands of ExecReload= read credentials.
    """
    try:
        known = {name: value for name, value in environ.items() if name != "CREDENTIALS_DIRECTORY"}
        return load(values, environ=known, config=config).settings.runtime_dir
    except ConfigError:
        return default_runtime_dir(environ, os.getuid())


def _by_hand(
    values: dict[str, str], config: Path | None, unit: str | None, environ: Mapping[str, str], server: Server
) -> socket:
    """Connect to the daemon that a person means. Raises _Nobody, and ConfigError."""
    unit = unit or server.named(values.get("instance"), config, environ)
    config = server.file(config, unit, environ, elsewhere="redis_url" in values)
    installed = server.unit(config, environ)
    where = ""
    if installed is not None and not _differs(installed, values, environ):
        # Its settings are for the daemon to judge, as they are for systemd: they may be wrong, or for root alone.
        connections = _listening(installed.runtime_dir)
        if len(connections) == 1:
            return connections[0]
        for connection in connections:
            connection.close()
        if connections:
            raise _Nobody(f"several daemons listen in {installed.runtime_dir}: systemctl reload {installed.name}")
        where = (
            f"no daemon of {installed.name} listens in {installed.runtime_dir}, or not to this user: "
            f"systemctl status {installed.name}"
        )
        if unit is not None:
            raise _Nobody(where)
    settings = load(values, environ=environ, config=config).settings
    try:
        return _of_instance(settings)
    except _Nobody:
        if not where:
            raise
        raise _Nobody(where) from None


def _differs(unit: Unit, values: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Whether options name another daemon than that of the unit."""
    others = {name for name, value in values.items() if name != "instance" or value != unit.instance}
    return bool(others or environ.get("JOBQD_RUNTIME_DIR"))


def _of_instance(settings: Settings) -> socket:
    from jobqd.store.connect import Target  # noqa: PLC0415 - systemd, which names the process, need not wait for it

    target, keys = Target.of(settings), Keys(settings.key_prefix, settings.queue)
    place = place_of(target.name, target.database, keys.ready)
    try:
        return connect(socket_path(settings.runtime_dir, settings.instance, place), _PATIENCE)
    except OSError:
        raise _nobody(f"of instance {settings.instance!r}", settings.runtime_dir) from None


def _nobody(who: str, directory: Path) -> _Nobody:
    return _Nobody(
        f"no daemon {who} listens in {directory}; it must run as this user, unless root asks, "
        "and its runtime_dir, instance, redis_url, queue and key_prefix must be these"
    )


def _of_process(directory: Path, process: int) -> socket:
    found = None
    for connection in _listening(directory):
        if peer(connection).pid == process:
            found = connection
        else:
            connection.close()
    if found is None:
        raise _nobody(f"with process id {process}", directory)
    return found


def _listening(directory: Path) -> list[socket]:
    """Return a connection to each daemon that listens there: in the directory of a unit, one."""
    connections = []
    for path in sorted(directory.glob("jobqd-*.sock")):
        with suppress(OSError):  # left by a daemon that was killed
            connections.append(connect(path, _PATIENCE))
    return connections


def _ask(connection: socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    with connection.makefile("rb") as replies:
        answer = json.loads(replies.readline())
    if not isinstance(answer, dict):
        raise ValueError("its answer is not one")  # noqa: TRY004 - reported as a reply that cannot be read
    return answer


def _tell(answer: dict[str, Any]) -> int:
    if answer["problem"]:
        raise ConfigError(f"not reloaded, nothing has changed: {answer['problem']}")
    for change in answer["changed"]:
        print(change)
    for change in answer["restart"]:
        print(f"jobqd: only after a restart: {change}", file=sys.stderr)
    if not answer["changed"]:
        print("nothing has changed")
    return 0
