"""Types of job that have settings but no handler: most likely they are misspelt."""

from __future__ import annotations

import difflib

from jobqd.handlers import Handlers
from jobqd.settings import Settings


def unknown_types(settings: Settings, handlers: Handlers) -> list[str]:
    """Return a sentence for each type that has settings but no handler, with the nearest one that has."""
    warnings = []
    for name in settings.jobs:
        if name not in handlers:
            near = difflib.get_close_matches(name, handlers.types, 1)
            hint = f"; did you mean [jobs.{near[0]}]?" if near else ""
            warnings.append(f"[jobs.{name}] has settings, but there is no handler of that type{hint}")
    return warnings
