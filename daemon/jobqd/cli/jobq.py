"""`jobq`: the command line for people: enqueue, watch, inspect, repair."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from jobqd import __version__
from jobqd.cli.jobq_dead import dead
from jobqd.cli.options import Id, Ids, Json, Limit, OneType, Yes, site_of, whole
from jobqd.cli.places import PlacedGroup
from jobqd.errors import EX_CONFIG, EX_USAGE, ConfigError, JobqdError, PayloadError

app = typer.Typer(
    name="jobq",
    cls=PlacedGroup,
    help="Enqueue, watch, inspect and repair the jobs of a jobqd queue.",
    epilog="Exit status: 0 done, 1 the answer is no (failed, not found), 2 usage, 69 Redis unreachable, "
    "78 configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dead, name="dead")


def main() -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 must not turn an ellipsis into a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="jobq")
    except ConfigError as error:
        _fail(error, EX_CONFIG)
    except PayloadError as error:
        _fail(error, EX_USAGE)
    except JobqdError as error:
        _fail(error, getattr(error, "status", 1))
    except BrokenPipeError:
        # The reader of the pipe (head, a pager) went away; the flush at exit must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(error: JobqdError, status: int) -> None:
    from jobqd.cli.text import block  # noqa: PLC0415 - a call for help alone must start at once

    print(f"jobq: {block(str(error))}", file=sys.stderr)
    sys.exit(status)


def _commands() -> ModuleType:
    """Import what does the work only when it is to be done: help and completion must start at once."""
    from jobqd.cli import commands  # noqa: PLC0415

    return commands


def _version(wanted: bool) -> None:
    if wanted:
        print(f"jobq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file (else $JOBQD_CONFIG, ./jobqd.toml, /etc/jobqd/jobqd.toml)."),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where Redis is. A password belongs in JOBQD_REDIS_PASSWORD."),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option("--instance", "-i", metavar="NAME", help="The unit jobqd@NAME: reads /etc/jobqd/NAME.toml."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Remember the options that stand before the command."""
    if config is not None and instance is not None:
        raise typer.BadParameter("it names a file already: leave out --config", param_hint="-i")
    context.obj = (config, redis_url, instance)


@app.command()
def enqueue(  # noqa: PLR0913, PLR0917 - the settled options; typer passes each by name
    context: typer.Context,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", show_default=False)],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="key=value…", help="The payload.", show_default=False)
    ] = None,
    payload: Annotated[
        str | None, typer.Option(metavar="JSON|-", help="The payload as a JSON object; - reads it from stdin.")
    ] = None,
    priority: Annotated[
        int, typer.Option(parser=whole("priority"), metavar="N", help="The lower runs the sooner; may be negative.")
    ] = 10,
    delay: Annotated[str | None, typer.Option(metavar="5m", help="Run it after so long.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run it at 18:30, 2026-01-31T18:30, or a Unix time.")
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; one that exists is left as it is.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(parser=whole("max_attempts"), metavar="N", help="How often it is tried.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="1h", help="How long one run may take.")] = None,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Put a job into the queue and print its id.

    key=value is a text, which the handler's type hints convert: user_id=7
    suits an int as well as a str, and 007 stays 007. A value that is a JSON
    object or list is taken as such. key:=JSON gives any JSON: n:=7, dry:=true
    """
    status = _commands().enqueue(
        site_of(context), job_type, words or [], payload=payload, priority=priority, delay=delay, at=at, new_id=new_id,
        max_attempts=max_attempts, timeout=timeout, follow=follow, as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(status)


@app.command()
def show(
    context: typer.Context,
    id: Id,
    as_json: Json = False,
) -> None:
    """Show everything about one job."""
    raise typer.Exit(_commands().show(site_of(context), id, as_json=as_json))


@app.command()
def watch(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """Follow jobs to their ends. Exit status 0: all are completed."""
    raise typer.Exit(_commands().watch(site_of(context), ids, as_json=as_json))


@app.command("list")
def list_jobs(
    context: typer.Context,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            help="queued, processing, scheduled, retrying, held, completed, failed or cancelled.",
        ),
    ] = None,
    job_type: OneType = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """List jobs: running ones, waiting ones, delayed ones, those that ended of late."""
    found = _commands().list_jobs(site_of(context), status=status, job_type=job_type, limit=limit, as_json=as_json)
    raise typer.Exit(found)


@app.command()
def stats(  # noqa: PLR0917 - as in enqueue
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    max_age: Annotated[
        str | None, typer.Option(metavar="5m", help="Exit with 1 if a job has been ready for longer.")
    ] = None,
    max_ready: Annotated[
        int | None,
        typer.Option(parser=whole("--max-ready", 0), metavar="N", help="Exit with 1 if more jobs are ready."),
    ] = None,
    max_dead: Annotated[
        int | None,
        typer.Option(parser=whole("--max-dead", 0), metavar="N", help="Exit with 1 if there are more dead letters."),
    ] = None,
    min_daemons: Annotated[
        int | None,
        typer.Option(parser=whole("--min-daemons", 0), metavar="N", help="Exit with 1 if fewer daemons run."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while no limit is passed.")] = False,
    as_json: Json = False,
) -> None:
    """Show how many jobs are where, and which daemons run.

    With a limit: one line for cron or Nagios, exit status 1 if it is passed.
    """
    from jobqd.cli import limits  # noqa: PLC0415 - as in _commands

    given = limits.queue_limits(max_age, max_ready, max_dead, min_daemons)
    if not given.given:
        if quiet:
            raise PayloadError("--quiet: give a limit too, such as --max-age 5m")
        raise typer.Exit(_commands().stats(site_of(context), follow=follow, as_json=as_json))
    if follow:
        raise PayloadError("--watch: a limit is looked at once; leave one of them out")
    raise typer.Exit(limits.check(site_of(context), given, quiet=quiet, as_json=as_json))


@app.command()
def cancel(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """End jobs at once, running ones too."""
    raise typer.Exit(_commands().cancel(site_of(context), ids, as_json=as_json))


@app.command()
def repair(
    context: typer.Context,
    yes: Yes = False,
    older_than: Annotated[
        str, typer.Option(metavar="1m", help="Leave alone what was written more lately and waits for its ZADD.")
    ] = "1m",
    as_json: Json = False,
) -> None:
    """Look for jobs that no daemon would ever run, and the like; with --yes put them right."""
    from jobqd.cli import repair as repairing  # noqa: PLC0415 - as in _commands

    raise typer.Exit(repairing.repair(site_of(context), yes=yes, older_than=older_than, as_json=as_json))


@app.command()
def quiet(
    context: typer.Context,
    instance: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    off: Annotated[bool, typer.Option("--off", help="Let it claim jobs again.")] = False,
    host: Annotated[str | None, typer.Option(metavar="HOST", help="Only on this host.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Let the daemons of an instance claim no more jobs; those that run go on."""
    from jobqd.cli import quiet as quieting  # noqa: PLC0415 - as in _commands

    raise typer.Exit(quieting.quiet(site_of(context), instance, off=off, host=host, as_json=as_json))


@app.command()
def logs(
    context: typer.Context,
    id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show what the journal of this machine holds about one job."""
    from jobqd.cli import logs as journal  # noqa: PLC0415 - as in _commands

    raise typer.Exit(journal.logs(site_of(context), id, follow=follow, as_json=as_json))


if __name__ == "__main__":
    main()
