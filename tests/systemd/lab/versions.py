"""Two versions of jobqd on one machine, each in an environment of its own, as docs/operations.md says; and a load."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.documents import Document
from tests.systemd.lab.application import Application
from tests.systemd.lab.machine import Machine

OPERATIONS = Document("docs/operations.md")
_PACE = 0.004
_LONG_EVERY = 20


def commands(mark: str) -> list[str]:
    """Return the command lines of the document's block that holds this text, without sudo: the lab is root."""
    (block,) = [block for block in OPERATIONS.blocks("console") if mark in block.text]
    lines = [line.removeprefix("$ ").partition("  #")[0].strip() for line in block.text.splitlines()]
    return [line.replace("sudo ", "") for line in lines]


MAKE = commands("jobqd unit --app-dir /srv/shop-b")
CHANGE_OVER = commands("systemctl stop --no-block jobqd@a")


def make_side(machine: Machine, side: str, wheel: Path, handlers: str) -> None:
    """Install a version for the instance `side` into /srv/shop-SIDE, and make its unit."""
    home = f"/srv/shop-{side}"
    machine.write(f"{home}/handlers.py", handlers)
    shutil.copy(wheel, machine.root / home.lstrip("/"))
    for command in MAKE:
        words = re.sub(r"(?<=[-/@ ])b\b", side, command)
        # The lab has no network: what jobqd needs is borrowed from the environment that is there.
        words = words.replace("install .", f"install --no-index --no-deps {home}/{wheel.name}")
        machine.shell(words, timeout=180)
        if "pip install" in words:
            borrowed = (
                f"echo /srv/shop/.venv/lib/python3.*/site-packages > $(echo {home}/.venv/lib/python3.*/site-packages)"
            )
            machine.shell(f"{borrowed}/borrowed.pth")


def change_over(machine: Machine, before: str, after: str) -> None:
    """Let one instance take over from the other; returns while the old one still waits for its jobs."""
    names = {"a": before, "b": after}
    for command in CHANGE_OVER:
        machine.shell(re.sub(r"(?<=[@ ])[ab]\b", lambda name: names[name[0]], command))


@contextmanager
def load(app: Application, kind: str) -> Iterator[list[str]]:
    """Enqueue jobs of this type as fast as a busy shop, some of a second, for as long as the block lasts."""
    acknowledged: list[str] = []
    enough, failures = threading.Event(), []

    def produce() -> None:
        try:
            while not enough.wait(_PACE):
                long = len(acknowledged) % _LONG_EVERY == 0
                acknowledged.append(app.enqueue(kind, seconds=1 if long else 0.01))
        except Exception as error:
            failures.append(error)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        yield acknowledged
    finally:
        enough.set()
        producer.join()
    assert not failures, f"the producer failed: {failures[0]!r}"
