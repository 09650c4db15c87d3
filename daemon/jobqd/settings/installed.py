"""What systemd gives the unit that a configuration file belongs to, for those who work beside it, as `jobq` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobqd.errors import ConfigError
from jobqd.settings import envfile
from jobqd.settings.layers import SYSTEM_FILE, Given, Layer, from_credentials, from_environment, reading_failed
from jobqd.settings.problems import Problem, quoted

RUN_CREDENTIALS = Path("/run/credentials")
"""Where systemd keeps the credentials of running units (systemd.exec(5))."""
_WITH_SUDO = "run it with sudo: it holds what only the unit and root may know"


@dataclass(frozen=True, slots=True)
class Unit:
    """An installed unit and the files it is given. `password_file` is what LoadCredential= reads.

    `instance` is the name that an instance is started with, "" for jobqd.service, which takes that of its settings.
    """

    name: str
    instance: str
    runtime_dir: Path
    environment_file: Path
    credentials: Path
    password_file: Path


def unit_of(config: Path | None, system_file: Path, run_credentials: Path) -> Unit | None:
    """Return the unit that runs with this configuration file; None for one that is not where `system_file` is."""
    if config is None:
        return None
    config = Path(os.path.normpath(config))
    if config.parent != system_file.parent or config.suffix != ".toml":
        return None
    instance = "" if config.name == system_file.name else config.stem
    name = f"jobqd@{instance}.service" if instance else "jobqd.service"
    return Unit(
        name,
        instance,
        run_credentials.parent / (f"jobqd-{instance}" if instance else "jobqd"),
        config.with_suffix(".env"),
        run_credentials / name,
        system_file.with_name("redis_password"),
    )


def instance_file(name: str, system_file: Path = SYSTEM_FILE) -> Path:
    """Return the configuration file of the instance `jobqd@NAME`. Raises ConfigError that names those there are."""
    file = system_file.parent / f"{name}.toml"
    proper = file.parent == system_file.parent and file.name != system_file.name
    # Where this user may not look, reading the file tells why not.
    if proper and (not os.access(system_file.parent, os.X_OK) or file.exists()):
        return file
    known = ", ".join(instances(system_file)) or "none"
    raise ConfigError(
        f"there is no instance {quoted(name)}: {file} does not exist; the instances of this machine: {known}"
    )


def instances(system_file: Path = SYSTEM_FILE) -> list[str]:
    """Name the instances that have a configuration file on this machine, as far as this user may know."""
    try:
        files = sorted(system_file.parent.glob("*.toml"))
    except OSError:
        return []
    return [file.stem for file in files if file.name != system_file.name]


def from_unit_command(unit: Unit | None) -> Layer:
    """Return what the command line of the unit says: an instance has its name from there."""
    if unit is None or not unit.instance:
        return Layer()
    return Layer({("instance",): Given(unit.instance, f"unit {unit.name}")})


def from_unit_environment(unit: Unit) -> Layer:
    """Read the JOBQD_* variables of the unit's EnvironmentFile=, if there is one."""
    where = f"file {unit.environment_file}"
    try:
        text = unit.environment_file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Layer()
    except (OSError, UnicodeDecodeError) as error:
        return Layer(problems=[Problem(where, reading_failed(error), _remedy(error))])
    found = envfile.variables(text)
    # The unit names its file on the command line, where no variable can change it.
    found.pop("JOBQD_CONFIG", None)
    return from_environment(found, where)


def from_unit_credentials(unit: Unit) -> Layer:
    """Read the credentials of the running unit; of one that does not run, the file that its password is loaded from.

    What this user may not read is passed over: a Redis without a password needs none, and another one asks for it.
    """
    try:
        running = unit.credentials.is_dir()
    except OSError:
        running = True
    if running:
        if not os.access(unit.credentials, os.R_OK | os.X_OK):
            return Layer()
        return from_credentials({"CREDENTIALS_DIRECTORY": str(unit.credentials)}, f"credential of {unit.name}")
    where = f"file {unit.password_file}"
    try:
        text = unit.password_file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Layer()
    except (OSError, UnicodeDecodeError) as error:
        return Layer(problems=[Problem(where, reading_failed(error), _remedy(error))])
    text = text.removesuffix("\n").removesuffix("\r")
    return Layer({("redis_password",): Given(text, where)} if text else {})


def _remedy(error: Exception) -> str:
    return _WITH_SUDO if isinstance(error, PermissionError) else "correct the file"


def from_unit(unit: Unit | None, environ: Mapping[str, str], above: Layer) -> tuple[Layer, Layer]:
    """Return what a unit's environment file and its credentials say, unless `above` makes them meaningless.

    The password of this machine's Redis is not for another that `above` (command line and environment) names.
    """
    if unit is None:
        return Layer(), Layer()
    variables = from_unit_environment(unit)
    told = {**variables.values, **above.values}
    known = ("redis_password",) in told or ("redis_url",) in above.values
    if known or environ.get("CREDENTIALS_DIRECTORY"):
        return variables, Layer()
    return variables, from_unit_credentials(unit)
