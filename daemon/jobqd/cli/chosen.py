"""Which configuration a command on a server works with: that of jobqd.service, or of an instance that is named."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobqd.errors import ConfigError
from jobqd.settings.installed import RUN_CREDENTIALS, Unit, instance_file, instances, unit_of
from jobqd.settings.layers import SYSTEM_FILE, find_file, from_credentials, from_environment

_PLAIN = "jobqd.service"
_PATIENCE = 5.0


def in_use(unit: str) -> bool:
    """Whether a unit runs, has failed, or is to be started at boot. True where no systemd tells."""
    command = ["systemctl", "show", "--property=ActiveState,UnitFileState", "--", unit]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)  # noqa: S603 - no shell
    except (OSError, subprocess.SubprocessError):
        return True
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return told.get("ActiveState") != "inactive" or told.get("UnitFileState", "").startswith("enabled")


@dataclass(frozen=True, slots=True)
class Server:
    """What is installed on this machine, as far as files and systemd tell."""

    system_file: Path = SYSTEM_FILE
    run_credentials: Path = RUN_CREDENTIALS
    in_use: Callable[[str], bool] = in_use

    def file(
        self, config: Path | None, instance: str | None, environ: Mapping[str, str], *, elsewhere: bool = False
    ) -> Path | None:
        """Return the TOML file that was named, by itself or by the instance jobqd@NAME; None: that which is found.

        `elsewhere`: the command line says where Redis is. Raises ConfigError for an instance that does not exist, and
        where it takes the name of one to know what is meant.
        """
        if instance is not None:
            return instance_file(instance, self.system_file)
        if config is None and not elsewhere and not _told_where(environ) and self._reads_of_plain(environ):
            self._check_plain_is_meant()
        return config

    def named(self, setting: str | None, config: Path | None, environ: Mapping[str, str]) -> str | None:
        """Return the setting `instance` of the command line if it names an installed instance, else None.

        It does so only where no other file is named or lies in the working directory: there it is a mere setting.
        """
        installed = config is None and setting in instances(self.system_file) and self._reads_of_plain(environ)
        return setting if installed else None

    def unit(self, config: Path | None, environ: Mapping[str, str]) -> Unit | None:
        """Return the unit whose configuration is read with this file, None if it is no unit's."""
        path, _ = find_file(config, environ, Path.cwd(), self.system_file)
        return unit_of(path, self.system_file, self.run_credentials)

    def _reads_of_plain(self, environ: Mapping[str, str]) -> bool:
        """Whether a command for which no file is named reads that of jobqd.service, or would if it were there."""
        path, _ = find_file(None, environ, Path.cwd(), self.system_file)
        return path is None or (path == self.system_file and not environ.get("JOBQD_CONFIG"))

    def _check_plain_is_meant(self) -> None:
        """Refuse where only instances are in use. Raises ConfigError.

        `make install` leaves the file of jobqd.service behind: it would answer for a queue that no daemon works on.
        """
        names = ", ".join(instances(self.system_file))
        if not names:
            return
        if not self.system_file.exists():
            raise ConfigError(f"which instance? There is no {self.system_file}: say -i NAME, for one of: {names}")
        if not self.in_use(_PLAIN):
            raise ConfigError(
                f"which instance? {_PLAIN} neither runs nor is enabled: say -i NAME, for one of: {names}; "
                f"or --config {self.system_file}"
            )


def _told_where(environ: Mapping[str, str]) -> bool:
    return any(("redis_url",) in layer.values for layer in (from_environment(environ), from_credentials(environ)))
