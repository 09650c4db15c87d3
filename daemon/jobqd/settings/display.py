"""Settings as text, secrets masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobqd.settings.kinds import HIDDEN, Secret, Url
from jobqd.settings.model import Settings, job_setting_names, setting_field, setting_kind, setting_names
from jobqd.settings.problems import quoted
from jobqd.settings.urls import safe_url

RUNTIME_DIR_DEFAULT = "$RUNTIME_DIRECTORY, else $XDG_RUNTIME_DIR/jobqd, else /tmp/jobqd-UID"


def shown(settings: Settings) -> dict[str, str]:
    """Return dotted name → text for all global settings and for those of single types that are set."""
    names: list[tuple[tuple[str, ...], Any]] = [((name,), getattr(settings, name)) for name in setting_names()]
    for job_type, job in settings.jobs.items():
        names += [
            (("jobs", job_type, name), value)
            for name in job_setting_names()
            if (value := getattr(job, name)) is not None
        ]
    texts = {".".join(name): shown_value(name, value) for name, value in names}
    if settings.redis_username is not None and settings.redis_password is None:
        texts["redis_username"] = HIDDEN  # redis://SECRET@host: most likely a password in the wrong place
    return texts


def shown_value(name: tuple[str, ...], value: Any) -> str:
    """Return one parsed value as a person would write it; the empty text for None."""
    text = "" if value is None else setting_kind(name).show(value)
    # A URL in the wrong setting holds its password all the same; as a path it has lost a slash.
    return safe_url(text) if ":/" in text else text


def shown_input(name: tuple[str, ...], value: Any) -> str | None:
    """Return a value as somebody wrote it, right or wrong, masked; None if it cannot be shown safely."""
    kind = setting_kind(name)
    if isinstance(kind, Secret):
        return HIDDEN
    if isinstance(kind, Url) and not isinstance(value, str):
        return None
    if isinstance(value, str | Path):
        return quoted(safe_url(str(value)))
    return safe_url(quoted(value))


def shown_default(name: tuple[str, ...]) -> str:
    """Return the default of a setting as text, empty if there is none."""
    if name == ("runtime_dir",):
        return RUNTIME_DIR_DEFAULT
    return shown_value(name, setting_field(name).get_default())


def subject(name: tuple[str, ...]) -> str:
    """Return how a person finds the setting: `timeout`, or `[jobs.video_render] timeout`."""
    return name[0] if len(name) == 1 else f"[jobs.{name[1]}] {name[2]}"
