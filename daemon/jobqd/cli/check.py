"""`jobqd check`: the settings and where each came from, the handlers imported, Redis reached and judged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobqd import __version__
from jobqd.cli.chosen import Server
from jobqd.errors import EX_CONFIG, EX_UNAVAILABLE, ConfigError
from jobqd.settings import Loaded, load, shown
from jobqd.settings.installed import RUN_CREDENTIALS

if TYPE_CHECKING:
    from jobqd.app import Finding

_GREEN, _YELLOW, _RED, _BOLD, _FAINT, _PLAIN = (f"\x1b[{code}m" for code in (32, 33, 31, 1, 2, 0))


def check(values: dict[str, str], config: Path | None, unit: str | None, *, as_json: bool) -> int:
    """Write a report to standard output and return the exit status: 0, 78 or 69.

    `values` are settings given on the command line, `unit` names an instance of this server. Raises ConfigError for
    settings that cannot be used, except with `as_json`, where the report says so.
    """
    server = Server()
    try:
        unit = unit or server.named(values.get("instance"), config, os.environ)
        config = server.file(config, unit, os.environ, elsewhere="redis_url" in values)
        loaded = load(values, config=config, run_credentials=RUN_CREDENTIALS)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "version": __version__, "error": str(error)}, ensure_ascii=False))
        return EX_CONFIG
    # Imports the handlers' whole world, which wrong settings must not need.
    from jobqd.app import check as examine  # noqa: PLC0415

    findings = examine(loaded)
    if as_json:
        print(json.dumps(_document(loaded, findings), ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(loaded, findings, colour=_colour())))
    sys.stdout.flush()
    return exit_status(findings)


def exit_status(findings: Sequence[Finding]) -> int:
    """Return 0 if nothing is wrong, 69 if it is Redis alone, which may come back by itself, else 78."""
    wrong = {finding.subject for finding in findings if finding.ok is False}
    if not wrong:
        return 0
    return EX_UNAVAILABLE if wrong == {"redis"} else EX_CONFIG


def _document(loaded: Loaded, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "ok": exit_status(findings) == 0,
        "version": __version__,
        "config": None if loaded.path is None else str(loaded.path),
        "settings": {
            name: {"value": value, "source": loaded.sources[name]} for name, value in shown(loaded.settings).items()
        },
        "warnings": loaded.warnings,
        "findings": [
            {"ok": finding.ok, "subject": finding.subject, "message": finding.message} for finding in findings
        ],
    }


def _lines(loaded: Loaded, findings: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    def painted(text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if colour else text

    yield painted(f"jobqd {__version__}", _BOLD)
    yield f"configuration file: {loaded.path or 'none'}"
    yield ""
    settings = shown(loaded.settings)
    name_width = max(map(len, settings))
    value_width = min(40, max(map(len, settings.values())))
    for name, value in settings.items():
        source = loaded.sources[name]
        line = f"  {name:{name_width}}  {value or '-':{value_width}}  {source}"
        yield painted(line, _FAINT) if source == "default" else line
    yield ""
    marks = {True: ("ok", _GREEN), None: ("warning", _YELLOW), False: ("WRONG", _RED)}
    results: list[tuple[bool | None, str, str]] = [(None, "settings", warning) for warning in loaded.warnings]
    results += [(finding.ok, finding.subject, finding.message) for finding in findings]
    subject_width = max((len(subject) for _, subject, _ in results), default=0)
    for ok, subject, message in results:
        word, code = marks[ok]
        first, *rest = message.rstrip().splitlines() or [""]
        indented = "\n".join([first, *((" " * (13 + subject_width) + line).rstrip() for line in rest)])
        yield f"  {painted(f'{word:7}', code)}  {subject:{subject_width}}  {indented}"


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
