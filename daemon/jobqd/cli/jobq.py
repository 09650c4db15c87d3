"""`jobq`: the command line for people: enqueue, watch, inspect, repair."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from jobqd import __version__
from jobqd.errors import EX_CONFIG, EX_USAGE, ConfigError, JobqdError, PayloadError

app = typer.Typer(
    name="jobq",
    help="Enqueue, watch, inspect and repair the jobs of a jobqd queue.",
    epilog="Exit status: 0 done, 1 the answer is no (failed, not found), 2 usage, 69 Redis unreachable, "
    "78 configuration.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead = typer.Typer(help="Dead letters: jobs that failed for good.", no_args_is_help=True)
app.add_typer(dead, name="dead")

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Most jobs to list.")]
OneType = Annotated[str | None, typer.Option("--type", help="Only jobs of this type.", show_default=False)]


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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Remember the options that stand before the command."""
    context.obj = (config, redis_url)


def _site(context: typer.Context) -> Any:
    from jobqd.cli.session import Site  # noqa: PLC0415 - as in _commands

    return Site(*context.obj)


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
    priority: Annotated[int, typer.Option(help="The lower runs the sooner; may be negative.")] = 10,
    delay: Annotated[str | None, typer.Option(metavar="5m", help="Run it after so long.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run it at 18:30, 2026-01-31T18:30, or a Unix time.")
    ] = None,
    new_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; one that exists is left as it is.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(metavar="N", help="How often it is tried.")] = None,
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
        _site(context), job_type, words or [], payload=payload, priority=priority, delay=delay, at=at, new_id=new_id,
        max_attempts=max_attempts, timeout=timeout, follow=follow, as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(status)


@app.command()
def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show everything about one job."""
    raise typer.Exit(_commands().show(_site(context), id, as_json=as_json))


@app.command()
def watch(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """Follow jobs to their ends. Exit status 0: all are completed."""
    raise typer.Exit(_commands().watch(_site(context), ids, as_json=as_json))


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
    found = _commands().list_jobs(_site(context), status=status, job_type=job_type, limit=limit, as_json=as_json)
    raise typer.Exit(found)


@app.command()
def stats(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show how many jobs are where, and which daemons run."""
    raise typer.Exit(_commands().stats(_site(context), follow=follow, as_json=as_json))


@app.command()
def cancel(context: typer.Context, ids: Ids, as_json: Json = False) -> None:
    """End jobs at once, running ones too."""
    raise typer.Exit(_commands().cancel(_site(context), ids, as_json=as_json))


@dead.command("list")
def dead_list(context: typer.Context, job_type: OneType = None, limit: Limit = 20, as_json: Json = False) -> None:
    """List dead letters, the newest first."""
    found = _commands().list_jobs(_site(context), status="failed", job_type=job_type, limit=limit, as_json=as_json)
    raise typer.Exit(found)


@dead.command("retry")
def dead_retry(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    as_json: Json = False,
) -> None:
    """Put dead letters back into the queue; their attempts begin anew."""
    raise typer.Exit(_commands().dead_retry(_site(context), ids or [], everything=everything, as_json=as_json))


if __name__ == "__main__":
    main()
