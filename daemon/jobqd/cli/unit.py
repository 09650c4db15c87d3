"""`jobqd unit`: the systemd unit for the environment that this command belongs to."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jobqd.errors import ConfigError
from jobqd.settings.model import setting_kind

TEMPLATE_INSTANCE = "%i"
"""What stands for the instance in a template unit: a specifier of systemd.unit(5)."""
# Anything else would have to be escaped, in three different ways, and read by people.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+@~,-]*")
_PLAIN_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
# The directories that ProtectHome= hides: systemd.exec(5).
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - named because the unit has others in their place


@dataclass(frozen=True, slots=True)
class Site:
    """Where an application is installed.

    `command` is the absolute path of `jobqd` in the application's virtual environment, `app_dir` the directory
    that its handlers are imported from, `user` the one the daemon runs as, `interpreter` the directory of the
    Python that the environment was made from.
    """

    command: Path
    app_dir: Path
    user: str = "jobqd"
    interpreter: Path = Path("/usr")

    def __post_init__(self) -> None:
        for name, path in (("command", self.command), ("app_dir", self.app_dir)):
            _check_path(name, path)
        if not _PLAIN_USER.fullmatch(self.user):
            remedy = "write the name of a user: letters, digits, dashes, underscores"
            raise ConfigError(f"user: {self.user!r} cannot stand in a unit; {remedy}")

    @property
    def environment(self) -> Path:
        """The virtual environment."""
        return self.command.parent.parent


def this_site(app_dir: Path, user: str) -> Site:
    """Return the site of the running interpreter. Raises ConfigError for paths that no unit can name."""
    # Not resolved: bin/jobqd of the environment may well be a link, but only there it finds its packages.
    command = Path(sysconfig.get_path("scripts")) / "jobqd"
    if not command.exists():
        raise ConfigError(f"command: {command} does not exist; install jobqd into this environment: pip install jobqd")
    directory = Path(os.path.normpath(app_dir.absolute()))
    return Site(command, directory, user, Path(sys.base_prefix))


def unit_text(site: Site, instance: str | None = None) -> str:
    """Return the text of jobqd.service, or with an instance that of jobqd@INSTANCE.service.

    `TEMPLATE_INSTANCE` gives jobqd@.service, of which systemd makes every instance. Raises ConfigError for an
    instance that cannot be the name of one.
    """
    name, file = "jobqd.service", "jobqd"
    if instance is not None:
        _check_instance(instance)
        name, file = f"jobqd@{'' if instance == TEMPLATE_INSTANCE else instance}.service", instance
    values = {
        "NAME": name,
        "FILE": file,
        "DESCRIPTION": "" if instance is None else f" {instance}",
        "OPTIONS": "" if instance is None else f" --instance {instance}",
        "RUNTIME": "jobqd" if instance is None else f"jobqd-{instance}",
        "USER": site.user,
        "APP_DIR": str(site.app_dir),
        "JOBQD": str(site.command),
        "PROTECT_HOME": _protect_home(site),
    }
    template = files("jobqd.cli").joinpath("templates/jobqd.service").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)


def _protect_home(site: Site) -> str:
    """Return what hides home directories but for what the application needs of one.

    Bound into an empty /home, these are reached whatever the mode of the home directory itself.
    """
    needed = [path for path in (site.app_dir, site.environment, site.interpreter) if _at_home(path)]
    outermost = [path for path in needed if not any(other in path.parents for other in needed)]
    if not outermost:
        return "yes"
    return "tmpfs\nBindReadOnlyPaths=" + " ".join(dict.fromkeys(map(str, outermost)))


def _at_home(path: Path) -> bool:
    return any(home in path.parents for home in _HOMES)


def _check_path(name: str, path: Path) -> None:
    if not _PLAIN_PATH.fullmatch(str(path)):
        wrong = "has characters that a unit cannot name plainly"
        raise ConfigError(f"{name}: {str(path)!r} {wrong}; use letters, digits and ._+@~,- in directories")
    if any(private in path.parents for private in _PRIVATE):
        raise ConfigError(f"{name}: {path} cannot be seen by the unit, whose /tmp is private; move it, such as to /srv")
    if path in (*_HOMES, Path("/")):
        raise ConfigError(f"{name}: {path} is not the directory of one application; name it with --app-dir DIR")


def _check_instance(instance: str) -> None:
    if instance == TEMPLATE_INSTANCE:
        return
    kind = setting_kind(("instance",))
    try:
        kind.parse(instance)
    except ValueError as error:
        raise ConfigError(f"instance: {instance!r}: {error}; write {kind.expected()}") from None
