"""`jobqd reload`: ask the running daemon to read its configuration again, and wait for what comes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from typing import Any

from jobqd.errors import EX_UNAVAILABLE, ConfigError
from jobqd.keys import Keys
from jobqd.lockfile import place_of, socket_path
from jobqd.settings import Settings, load
from jobqd.settings.model import default_runtime_dir
from jobqd.socketfile import connect, peer

_PATIENCE = 60.0


def reload(values: dict[str, str], config: Path | None, environ: Mapping[str, str] = os.environ) -> int:
    """Reload, tell the difference, and return the exit status: 0, 69 if no daemon answers, 78 if it refused.

    As ExecReload= of a systemd unit, the daemon is the unit's ($MAINPID), and it follows the environment that systemd
    has read for this command; else it is the one that these settings name. Raises ConfigError for a configuration that
    cannot be used.
    """
    if environ.get("MAINPID", "").isdecimal():
        process = int(environ["MAINPID"])
        directory = _runtime_dir(values, config, environ)
        connection, who = _of_process(directory, process), f"with process id {process}"
    else:
        process = None
        settings = load(values, environ=environ, config=config).settings
        directory = settings.runtime_dir
        connection, who = _of_instance(settings), f"of instance {settings.instance!r}"
    if connection is None:
        print(
            f"jobqd: no daemon {who} listens in {directory}; it must run as this user, unless root asks, "
            "and its runtime_dir, instance, redis_url, queue and key_prefix must be these",
            file=sys.stderr,
        )
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


def _of_instance(settings: Settings) -> socket | None:
    from jobqd.store.connect import Target  # noqa: PLC0415 - systemd, which names the process, need not wait for it

    target, keys = Target.of(settings), Keys(settings.key_prefix, settings.queue)
    place = place_of(target.name, target.database, keys.ready)
    try:
        return connect(socket_path(settings.runtime_dir, settings.instance, place), _PATIENCE)
    except OSError:
        return None


def _of_process(directory: Path, process: int) -> socket | None:
    for path in sorted(directory.glob("jobqd-*.sock")):
        try:
            connection = connect(path, _PATIENCE)
        except OSError:
            continue  # left by a daemon that was killed
        if peer(connection).pid == process:
            return connection
        connection.close()
    return None


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
