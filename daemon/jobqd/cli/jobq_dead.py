"""`jobq dead`: the commands for dead letters."""

from __future__ import annotations

from types import ModuleType
from typing import Annotated

import typer

from jobqd.cli.options import Id, Json, Limit, OneType, SomeIds, Yes, site_of

dead = typer.Typer(help="Dead letters: jobs that failed for good.", no_args_is_help=True)
Everything = Annotated[bool, typer.Option("--all", help="All of them.")]


def _commands() -> ModuleType:
    """Import what does the work only when it is to be done: help and completion must start at once."""
    from jobqd.cli import letters  # noqa: PLC0415

    return letters


@dead.command("list")
def dead_list(context: typer.Context, job_type: OneType = None, limit: Limit = 20, as_json: Json = False) -> None:
    """List dead letters, the newest first."""
    from jobqd.cli import commands  # noqa: PLC0415 - as above

    found = commands.list_jobs(site_of(context), status="failed", job_type=job_type, limit=limit, as_json=as_json)
    raise typer.Exit(found)


@dead.command("show")
def dead_show(context: typer.Context, id: Id, as_json: Json = False) -> None:
    """Show everything about a dead letter: payload, error, traceback, earlier failures."""
    raise typer.Exit(_commands().show(site_of(context), id, as_json=as_json))


@dead.command("retry")
def dead_retry(
    context: typer.Context, ids: SomeIds = None, everything: Everything = False, as_json: Json = False
) -> None:
    """Put dead letters back into the queue; their attempts begin anew."""
    raise typer.Exit(_commands().retry(site_of(context), ids or [], everything=everything, as_json=as_json))


@dead.command("purge")
def dead_purge(
    context: typer.Context,
    ids: SomeIds = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="7d", help="Only those that failed so long ago.", show_default=False)
    ] = None,
    job_type: OneType = None,
    everything: Everything = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good, with payload and error. Without --yes, tell which ones it would be."""
    status = _commands().purge(
        site_of(context), ids or [], older_than=older_than, job_type=job_type, everything=everything, yes=yes,
        as_json=as_json,
    )  # fmt: skip
    raise typer.Exit(status)
