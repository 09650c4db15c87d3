"""What is wrong with a configuration, written for somebody who was woken up by it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a configuration from being used.

    `subject` is the setting, variable or file as a person wrote it; `value` is ready to be shown, secrets
    masked, None where it would not help; `origin` tells where it was set, empty where the subject says so.
    """

    subject: str
    wrong: str
    remedy: str
    value: str | None = None
    origin: str = ""


def report(problems: Sequence[Problem]) -> str:
    """Return one text that names every problem, where it was set, and what to do about it."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"the configuration cannot be used ({count}):", *map(_paragraph, problems)])


def _paragraph(problem: Problem) -> str:
    head = problem.subject if problem.value is None else f"{problem.subject} = {problem.value}"
    lines = [f"\n  {head}"]
    if problem.origin:
        lines.append(f"    set in  {problem.origin}")
    lines.append(f"    wrong   {problem.wrong}")
    lines.append(f"    remedy  {problem.remedy}")
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str], closeness: float = 0.7) -> str | None:
    """Return the known name that a misspelled one most likely means, or None."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1, cutoff=closeness)
    return found[0] if found else None


def quoted(value: object) -> str:
    """Return a value as it would stand in a TOML file, on one line and cut to a readable length."""
    if isinstance(value, bool | str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    # A surrogate (an undecodable byte of the environment) or a control character must not reach a terminal.
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
