"""The places that settings come from, each read into a layer of values that know where they were set."""

from __future__ import annotations

import grp
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobqd.settings.model import job_setting_names, setting_names
from jobqd.settings.problems import Problem, nearest, quoted
from jobqd.settings.urls import has_credentials

PREFIX = "JOBQD_"
SYSTEM_FILE = Path("/etc/jobqd/jobqd.toml")
_JOBS = "JOBQD_JOBS__"
_NOT_SETTINGS = frozenset({"JOBQD_CONFIG", "JOBQD_DEMO_DIR"})
# Lower would refuse what container platforms inject for a service of this name (JOBQD_REDIS_PORT is 0.74 from
# redis_url), higher would let JOBQD_REDIS_URLS and its like pass.
_CLOSE = 0.78
_INSTEAD_OF_OPTION = (
    "use a systemd credential (LoadCredential=redis_password:/etc/jobqd/redis_password), "
    "the variable JOBQD_REDIS_PASSWORD, or redis_password in the TOML file; and redis_username for the user"
)

Name = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and where."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says: values by `(setting,)` or `("jobs", TYPE, setting)`, and what is wrong with it."""

    values: dict[Name, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def merged(layers: Iterable[Layer]) -> Layer:
    """Return layers put on one another, the last on top."""
    whole = Layer()
    for layer in layers:
        whole.values.update(layer.values)
        whole.problems.extend(layer.problems)
        whole.warnings.extend(layer.warnings)
    return whole


def from_command_line(values: Mapping[str, str]) -> Layer:
    """Read settings given as options. A password is refused: every user can read a command line."""
    layer = Layer()
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if name not in setting_names():
            layer.problems.append(_unknown(option, name, setting_names(), "command line", "--{}"))
        elif name == "redis_password" or (name == "redis_url" and has_credentials(value)):
            wrong = "it carries a password or a user, and every user of this machine can read a command line"
            layer.problems.append(Problem(option, wrong, _INSTEAD_OF_OPTION))
        else:
            layer.values[name,] = Given(value, "command line")
    return layer


def from_environment(environ: Mapping[str, str], where: str = "environment") -> Layer:
    """Read the variables JOBQD_*, which were set at `where`; an empty one counts as not set."""
    layer = Layer()
    for variable, value in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable in _NOT_SETTINGS or not value:
            continue
        name = _variable_name(variable)
        if name is not None:
            layer.values[name] = Given(value, f"{where} {variable}")
        elif problem := _variable_problem(variable):
            layer.problems.append(problem)
        else:
            layer.warnings.append(f"the variable {quoted(variable)[1:-1]} is not a setting: it is ignored")
    return layer


def _variable_name(variable: str) -> Name | None:
    if variable.startswith(_JOBS):
        job_type, separator, option = variable.removeprefix(_JOBS).rpartition("__")
        if job_type and separator and option.lower() in job_setting_names():
            return ("jobs", job_type.lower() if job_type.isupper() else job_type, option.lower())
        return None
    name = variable.removeprefix(PREFIX)
    return (name.lower(),) if name.isupper() and name.lower() in setting_names() else None


def _variable_problem(variable: str) -> Problem | None:
    """Return a problem if the variable is near enough to a setting to have been meant as one."""
    upper = variable.upper()
    wrong = "there is no such setting"
    if upper.startswith(_JOBS):
        job_type, _, option = upper.removeprefix(_JOBS).rpartition("__")
        meant = nearest(option, job_setting_names(), 0.0) or "timeout"
        return Problem(variable, wrong, f"did you mean {_JOBS}{job_type or 'TYPE'}__{meant.upper()}?")
    per_type = "|".join(job_setting_names()).upper()
    if match := re.fullmatch(rf"JOBQD_JOBS?_+(.+?)_+({per_type})", upper):
        remedy = f"did you mean {_JOBS}{match[1]}__{match[2]}? (two underscores, twice)"
        return Problem(variable, wrong, remedy)
    near = nearest(upper.removeprefix(PREFIX), [*setting_names(), "config"], _CLOSE)
    return Problem(variable, wrong, f"did you mean {PREFIX}{near.upper()}?") if near else None


def from_credentials(environ: Mapping[str, str], where: str = "credential") -> Layer:
    """Read the files of $CREDENTIALS_DIRECTORY (systemd.exec(5)) named NAME or jobqd.NAME; the latter wins.

    One newline at the end is dropped: editors add it. Other files there belong to the application.
    """
    layer = Layer()
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return layer
    for name in setting_names():
        for file in (Path(directory) / name, Path(directory) / f"jobqd.{name}"):
            try:
                text = file.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                remedy = "correct the file, or the line of the unit that loads it"
                layer.problems.append(Problem(f"credential {file}", reading_failed(error), remedy))
                continue
            if text := text.removesuffix("\n").removesuffix("\r"):  # empty: the unit's default where there is no file
                layer.values[name,] = Given(text, where)
    return layer


def find_file(config: Path | None, environ: Mapping[str, str], cwd: Path, system_file: Path) -> tuple[Path | None, str]:
    """Return the TOML file to read, or None, and what named it; "" if it was only looked for."""
    if config is not None:
        return cwd / config, "the option --config"
    if variable := environ.get("JOBQD_CONFIG"):
        return cwd / variable, "the variable JOBQD_CONFIG"
    return next((file for file in (cwd / "jobqd.toml", system_file) if _is_there(file)), None), ""


def _is_there(file: Path) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # It may be there: to pass over it could mean to talk to the wrong Redis. Reading it reports why not.
        return True
    return True


def from_file(path: Path, named_by: str, *, in_unit: bool = False) -> Layer:
    """Read a TOML file. `in_unit`: for a process that systemd started, whom no sudo helps."""
    layer = Layer()
    where = f"file {path}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            document = tomllib.load(file)
    except FileNotFoundError:
        layer.problems.append(Problem(where, "it does not exist", f"correct {named_by}, or create the file"))
    except OSError as error:
        sudo = "run it with sudo, " if isinstance(error, PermissionError) else ""
        remedy = f"{sudo}let the user of this process read it, or name another with --config or JOBQD_CONFIG"
        if sudo and in_unit:
            remedy = f"let the group of the unit read it: {_open_to_group(path)}"
        layer.problems.append(Problem(where, reading_failed(error), remedy))
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError, UnicodeDecodeError, the bare ValueError of an integer of thousands of digits, and what the
        # parser raises at hundreds of brackets.
        remedy = 'correct that line; every text needs quotes: queue = "job_queue"'
        layer.problems.append(Problem(where, f"it is not valid TOML: {error}", remedy))
    else:
        _read_document(document, where, layer)
        if ("redis_password",) in layer.values and mode & stat.S_IROTH:
            layer.warnings.append(f"{where} holds redis_password and every user can read it: chmod 640 it")
    return layer


def _open_to_group(path: Path) -> str:
    """Return the commands that let the group of this process read a file, and reach it."""
    number = os.getegid()
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    commands = f"sudo chgrp {group} {path} && sudo chmod 640 {path}"
    if os.access(path.parent, os.X_OK):
        return commands
    return f"sudo chgrp {group} {path.parent} && sudo chmod 2750 {path.parent} && {commands}"


def _read_document(document: dict[str, Any], where: str, layer: Layer) -> None:
    for key, value in document.items():
        if key != "jobs":
            if key in setting_names():
                layer.values[key,] = Given(value, where)
            else:
                layer.problems.append(_unknown_key(key, where))
        elif not isinstance(value, dict):
            remedy = "write [jobs.TYPE], and below it the settings of this type"
            layer.problems.append(Problem("jobs", "it is not a table", remedy, origin=where))
        else:
            for job_type, table in value.items():
                _read_job_table(job_type, table, where, layer)


def _read_job_table(job_type: str, table: Any, where: str, layer: Layer) -> None:
    if not isinstance(table, dict):
        remedy = f"write [jobs.TYPE] with the type of the jobs, and {job_type} = … below it"
        layer.problems.append(Problem(f"[jobs] {job_type}", "[jobs] holds tables only", remedy, origin=where))
        return
    for key, value in table.items():
        name = f"[jobs.{job_type}] {key}"
        if key in job_setting_names():
            layer.values["jobs", job_type, key] = Given(value, where)
        elif key in setting_names():
            wrong = "it is a setting of the whole daemon, not of one type"
            remedy = "move the line up, above the first line that begins with ["
            layer.problems.append(Problem(name, wrong, remedy, origin=where))
        else:
            layer.problems.append(_unknown(name, key, job_setting_names(), where))


def _unknown_key(key: str, where: str) -> Problem:
    if key in job_setting_names():
        wrong = "it is a setting of one type of job, not of the whole daemon"
        return Problem(key, wrong, f"write [jobs.TYPE] and below it {key} = …", origin=where)
    return _unknown(key, key, [*setting_names(), "jobs"], where)


def _unknown(subject: str, key: str, known: list[str], where: str, form: str = "{}") -> Problem:
    # No value: a misspelled redis_password is still a password.
    near = nearest(key, known)
    remedy = f"did you mean {near}?" if near else "remove it; the settings there are: " + ", ".join(known)
    if near and form != "{}":
        remedy = f"did you mean {form.format(near.replace('_', '-'))}?"
    return Problem(quoted(subject)[1:-1], "there is no such setting", remedy, origin=where)


def reading_failed(error: Exception) -> str:
    """Return why a file could not be read."""
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror or error}"
    return "it is not a text in UTF-8"
