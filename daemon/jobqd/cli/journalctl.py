"""Entries of the journal about one job, read through the program journalctl: no library of systemd is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqd.logs.logger import SUBJECT_LIMIT
from jobqd.logs.text import block, cut

_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))
_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `time` is in Unix seconds; `fields` are all that the writer gave it, as texts."""

    time: float
    fields: Mapping[str, str]

    @property
    def level(self) -> str:
        """The level as a word."""
        text = self.fields.get("PRIORITY", "")
        return _LEVELS[int(text)] if text in list("01234567") else "info"

    @property
    def message(self) -> str:
        """The message, without the type and id of the job that it begins with."""
        subject = f"{self.fields.get('JOB_TYPE', '')} {self.fields.get('JOB_ID', '')} ".lstrip()
        return self.fields.get("MESSAGE", "").removeprefix(subject)


def program() -> str | None:
    """Return the path of journalctl, or None where there is none."""
    return shutil.which("journalctl")


def readable() -> bool:
    """Whether this user may read the system's journal, or there is none."""
    files = [file for directory in _JOURNALS for file in directory.glob("*/system.journal")]
    return os.geteuid() == 0 or not files or any(os.access(file, os.R_OK) for file in files)


@contextmanager
def entries(journalctl: str, job_id: str, *, follow: bool) -> Iterator[Iterator[Entry]]:
    """Give what the journal holds about a job, oldest first; with `follow` it goes on as more is written."""
    # The id as the log shows it: journald compares bytes.
    wanted = f"JOB_ID={block(cut(job_id, SUBJECT_LIMIT))}"
    options = ["--quiet", "--no-pager", "--all", "--output=json", *(["--follow", "--lines=all"] if follow else [])]
    command = [journalctl, *options, "SYSLOG_IDENTIFIER=jobqd", wanted]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:  # noqa: S603 - no shell
        try:
            assert process.stdout is not None  # noqa: S101 - PIPE above
            yield (entry for line in process.stdout if (entry := _entry(line)) is not None)
        finally:
            # It only reads; asked to end, one that follows may wait for a journald that is slow to answer.
            process.kill()


def _entry(line: bytes) -> Entry | None:
    try:
        document = json.loads(line)
        time = int(document["__REALTIME_TIMESTAMP"]) / 1e6
    except (ValueError, KeyError, TypeError):
        return None
    return Entry(time, {name: _text(value) for name, value in document.items() if not name.startswith("__")})


def _text(value: Any) -> str:
    """Return a field as text: what is not printable UTF-8 comes as a list of bytes, a field given twice as a list."""
    if isinstance(value, list):
        if all(isinstance(item, int) for item in value):
            return bytes(value).decode(errors="backslashreplace")
        return "\n".join(map(_text, value))
    return "" if value is None else str(value)
