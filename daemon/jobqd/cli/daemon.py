"""`jobqd`: the command line that starts the daemon and examines its configuration."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobqd import __version__
from jobqd.cli.check import check
from jobqd.errors import EX_CONFIG, ConfigError
from jobqd.settings import load
from jobqd.settings.display import shown_default
from jobqd.settings.kinds import Switch
from jobqd.settings.model import setting_field, setting_kind, setting_names
from jobqd.settings.problems import nearest

_CONFIG_HELP = "TOML file to read (else $JOBQD_CONFIG, ./jobqd.toml, /etc/jobqd/jobqd.toml)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done; 2: the command line cannot be understood (raised as SystemExit by argparse); 69: Redis cannot be
    reached; 78: the configuration cannot be used. The daemon's own statuses pass through.
    """
    arguments = _parsed(argv)
    command, config = arguments.pop("command"), arguments.pop("config", None)
    burst, as_json, unit = arguments.pop("burst", False), arguments.pop("json", False), arguments.pop("unit", None)
    values = {name: value for name, value in arguments.items() if value is not None}
    try:
        if command == "unit":
            return _unit(**arguments)
        if command == "check":
            return check(values, config, unit, as_json=as_json)
        if command == "reload":
            from jobqd.cli.reload import reload  # noqa: PLC0415 - the daemon does not need it

            return reload(values, config, unit)
        return _run(values, config, burst=burst)
    except ConfigError as error:
        print(f"jobqd: {error}", file=sys.stderr)
        return EX_CONFIG
    except BrokenPipeError:
        # The reader of the pipe (head, a pager) went away; the flush at exit must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parsed(argv: Sequence[str] | None) -> dict[str, Any]:
    parser = _parser()
    known, others = parser.parse_known_args(argv)
    # Without their values: a misspelled --redis-password is followed by a password.
    unknown = [text.partition("=")[0] for text in others if text.startswith("-")]
    if unknown:
        offered = [name for name in vars(known) if name != "command"]
        near = nearest(unknown[0].lstrip("-"), offered)
        meant = f": did you mean --{near.replace('_', '-')}?" if near else f": see jobqd {known.command} --help"
        parser.error(f"there is no option {unknown[0]}{meant}")
    if others:
        parser.error(f"{len(others)} words too many: settings are written --NAME VALUE")
    if getattr(known, "config", None) is not None and getattr(known, "unit", None) is not None:
        parser.error("-i names a file already: leave out --config")
    return vars(known)


def _run(values: dict[str, str], config: Path | None, *, burst: bool) -> int:
    loaded = load(values, config=config)
    # After the settings are known to be right: a wrong one is then reported within a blink.
    from jobqd.app import run  # noqa: PLC0415

    cwd = Path.cwd()
    return run(loaded, again=lambda environ: load(values, environ=environ, config=config, cwd=cwd), burst=burst)


def _unit(instance: str | None, app_dir: Path, user: str) -> int:
    from jobqd.cli.unit import this_site, unit_text  # noqa: PLC0415 - the daemon does not need it

    print(unit_text(this_site(app_dir, user), instance), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobqd", description="A job queue on the Redis you already run.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"jobqd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(commands, "run", "run jobs until stopped (SIGTERM or SIGINT)")
    run.add_argument(
        "--burst",
        action="store_true",
        help="stop when nothing is ready, running, or due within retry_max_delay",
    )
    examine = _command(commands, "check", "show the settings, import the handlers, try Redis")
    examine.add_argument("--json", action="store_true", help="write one JSON object")
    again = _command(commands, "reload", "let the running daemon read its configuration again, and wait for it")
    for command in (examine, again):
        command.add_argument(
            "-i",
            dest="unit",
            metavar="NAME",
            help="the unit jobqd@NAME of this server, which reads /etc/jobqd/NAME.toml",
        )
    for command in (run, examine, again):
        _add_settings(command)
    _add_unit(commands)
    return parser


def _add_unit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    purpose = "print the systemd unit for this environment"
    unit = commands.add_parser("unit", help=purpose, description=purpose, allow_abbrev=False)
    unit.add_argument(
        "--instance", metavar="NAME", help="print jobqd@NAME.service, one of several side by side; %%i for the template"
    )
    unit.add_argument(
        "--app-dir", type=Path, default=Path(), metavar="DIR", help="where the handlers are (default: this directory)"
    )
    unit.add_argument("--user", default="jobqd", metavar="NAME", help="whom it runs as (default: jobqd)")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
    command.add_argument("--config", type=Path, metavar="FILE", help=_CONFIG_HELP)
    return command


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add an option for every global setting; the password's exists only to say why it is refused."""
    group = parser.add_argument_group("settings", "each also as JOBQD_NAME in the environment, or in the TOML file")
    for name in setting_names():
        flag = "--" + name.replace("_", "-")
        if name == "redis_password":
            group.add_argument(flag, dest=name, nargs="?", const="", help=argparse.SUPPRESS)
            continue
        default = shown_default((name,))
        text = f"{setting_field((name,)).description or ''}" + (f" Default: {default}" if default else "")
        text = text.replace("%", "%%")
        if isinstance(setting_kind((name,)), Switch):
            group.add_argument(flag, dest=name, nargs="?", const="true", metavar="true|false", help=text)
        else:
            group.add_argument(flag, dest=name, metavar=name.rpartition("_")[2].upper(), help=text)


if __name__ == "__main__":
    sys.exit(main())
