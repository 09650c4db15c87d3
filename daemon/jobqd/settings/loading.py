"""Reading the configuration: the layers put on one another, checked, and every problem reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobqd.errors import ConfigError
from jobqd.settings.contradictions import oddities
from jobqd.settings.display import shown_default, shown_input, subject
from jobqd.settings.installed import Unit, from_unit, from_unit_command, unit_of
from jobqd.settings.layers import (
    SYSTEM_FILE,
    Given,
    Layer,
    Name,
    find_file,
    from_command_line,
    from_credentials,
    from_environment,
    from_file,
    merged,
)
from jobqd.settings.model import CONTRADICTION, Settings, default_runtime_dir, setting_kind, setting_names
from jobqd.settings.problems import Problem, report
from jobqd.settings.urls import parse_url


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used.

    `sources` tells for every global setting, and each one set for a type (`jobs.TYPE.NAME`), where its value
    came from: "command line", "environment JOBQD_X", "credential", "file PATH" or "default". `warnings` are
    sentences for the log. `path` is the TOML file that was read.
    """

    settings: Settings
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    path: Path | None = None

    @property
    def redis_origin(self) -> str:
        """Where the address of Redis came from, and where to set it, as a clause."""
        source = self.sources.get("redis_url", "default")
        if source == "default":
            return "redis_url is not set, so this is the default; set JOBQD_REDIS_URL or redis_url in jobqd.toml"
        return f"redis_url is set by {source}"


def load(
    argv_values: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    config: Path | None = None,
    cwd: Path = Path(),
    system_file: Path = SYSTEM_FILE,
    run_credentials: Path | None = None,
) -> Loaded:
    """Return the settings: command line, environment, systemd credentials, TOML, defaults, in this order.

    `argv_values` maps names of settings to texts. `config` is a TOML file that must exist; else JOBQD_CONFIG
    names one; else jobqd.toml in `cwd`, else `system_file` is read if it is there. Relative paths, `app_dir`
    and the directory of an embedded Redis among them, count from `cwd`.

    With `run_credentials`, where systemd keeps the credentials of running units, for programs that people run on a
    server: a file in the directory of `system_file` brings what systemd gives its unit: the name of an instance, the
    runtime directory once it is there, the environment file, which comes below the environment, and the credentials,
    where systemd gave this process none.

    Raises ConfigError that names every problem at once, those of contradicting settings only when each is right by
    itself.
    """
    cwd = cwd.absolute()
    path, named_by = find_file(config, environ, cwd, system_file)
    unit = unit_of(path, system_file, run_credentials) if run_credentials else None
    in_unit = bool(environ.get("CREDENTIALS_DIRECTORY"))
    file = Layer() if path is None else from_file(path, named_by, in_unit=in_unit)
    whole = merged([file, *_above_the_file(argv_values or {}, environ, unit)])
    given, problems = whole.values, whole.problems
    runtime_dir, its_source = _runtime_dir(environ, unit)
    settings = _validated(given, runtime_dir, problems)
    if settings is not None:
        problems += _missing_files(settings, given)
    if settings is None or problems:
        raise ConfigError(report(problems))
    sources = _sources(settings, given)
    sources["runtime_dir"] = its_source if sources["runtime_dir"] == "default" else sources["runtime_dir"]
    return Loaded(_absolute(settings, cwd), sources, whole.warnings + oddities(settings), path)


def _above_the_file(argv_values: Mapping[str, str], environ: Mapping[str, str], unit: Unit | None) -> list[Layer]:
    environment, command_line = from_environment(environ), from_command_line(argv_values)
    variables, credentials = from_unit(unit, environ, merged([environment, command_line]))
    return [credentials, from_credentials(environ), variables, environment, from_unit_command(unit), command_line]


def _runtime_dir(environ: Mapping[str, str], unit: Unit | None) -> tuple[Path, str]:
    """Return the directory of lock files that is the default here, and what makes it so."""
    # systemd makes the unit's: without it, this file belongs to a daemon that somebody else starts, as in a container.
    if unit is not None and not environ.get("RUNTIME_DIRECTORY") and unit.runtime_dir.is_dir():
        return unit.runtime_dir, f"unit {unit.name}"
    named = next(filter(environ.get, ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")), None)
    return default_runtime_dir(environ, os.getuid()), f"environment {named}" if named else "default"


def _validated(given: dict[Name, Given], runtime_dir: Path, problems: list[Problem]) -> Settings | None:
    """Return the settings, or None after adding to `problems` what is wrong with the values."""
    values: dict[str, Any] = {"runtime_dir": runtime_dir, "jobs": {}}
    for name, item in given.items():
        table = values if len(name) == 1 else values["jobs"].setdefault(name[1], {})
        table[name[-1]] = item.value
    try:
        return Settings(**values)
    except ValidationError as failure:
        for error in failure.errors(include_url=False, include_input=False):
            problems += _problems(error, given)
        return None


def _problems(error: ErrorDetails, given: dict[Name, Given]) -> list[Problem]:
    context = error.get("ctx", {})
    if error["type"] == CONTRADICTION:
        names = {".".join(name): name for name in given}
        return [
            _located(problem, names.get(problem.subject, (problem.subject,)), given) for problem in context["problems"]
        ]
    name = tuple(map(str, error["loc"]))
    default = shown_default(name)
    remedy = f"write {setting_kind(name).expected()}" + (f"; the default is {default}" if default else "")
    return [_located(Problem(subject(name), str(context.get("error", "it cannot be used")), remedy), name, given)]


def _located(problem: Problem, name: Name, given: dict[Name, Given]) -> Problem:
    item = given.get(name)
    if item is None:
        return replace(problem, subject=subject(name), value=shown_default(name), origin="default")
    return replace(problem, subject=subject(name), value=shown_input(name, item.value), origin=item.origin)


def _missing_files(settings: Settings, given: dict[Name, Given]) -> list[Problem]:
    if settings.tls_ca is None:
        return []
    try:
        with settings.tls_ca.open("rb"):
            return []
    except OSError as error:
        problem = Problem("tls_ca", f"it cannot be read: {error.strerror}", "write the path of a PEM file")
    return [_located(problem, ("tls_ca",), given)]


def _absolute(settings: Settings, base: Path) -> Settings:
    changes: dict[str, Any] = {
        "app_dir": Path(os.path.normpath(base / settings.app_dir)),
        "runtime_dir": base / settings.runtime_dir,
        "redis_url": str(parse_url(settings.redis_url).under(base)),
    }
    if settings.tls_ca is not None:
        changes["tls_ca"] = base / settings.tls_ca
    return settings.model_copy(update=changes)


def _sources(settings: Settings, given: dict[Name, Given]) -> dict[str, str]:
    sources = dict.fromkeys(setting_names(), "default")
    sources |= {".".join(name): item.origin for name, item in given.items()}
    for name in ("redis_username", "redis_password"):
        if (name,) not in given and getattr(settings, name) is not None:
            sources[name] = sources["redis_url"]
    return sources
