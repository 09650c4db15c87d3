"""What the commands of `jobq` share: options that several take, and the options that stand before the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobqd.cli.ids import read_id

if TYPE_CHECKING:
    from jobqd.cli.session import Site

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", parser=read_id, show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", parser=read_id, show_default=False)]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="ID…", parser=read_id, show_default=False)]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Most jobs to list.")]
OneType = Annotated[str | None, typer.Option("--type", help="Only jobs of this type.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, only tell what would be done.")]


def site_of(context: typer.Context) -> Site:
    """Return where the queue is, by the options before the command."""
    from jobqd.cli.session import Site  # noqa: PLC0415 - a call for help alone must start at once

    return Site(*context.obj)
