"""What the commands of `jobq` share: options that several take, and the options that stand before the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from jobqd.cli.ids import read_id
from jobqd.errors import EX_USAGE, JobqdError
from jobqd.units import shorten

if TYPE_CHECKING:
    from jobqd.cli.session import Site


class Misuse(JobqdError):  # noqa: N818 - it carries an exit status
    """The command line cannot be understood. No ValueError, of which typer would not keep the message."""

    status = EX_USAGE


def whole(name: str, least: int | None = None, most: int | None = None) -> Callable[[object], int]:
    """Return what reads an integer between two bounds, and raises Misuse that shows what was given."""

    def read(text: object) -> int:
        try:
            number = int(str(text))
        except ValueError:
            raise Misuse(f"{name}: {shorten(text)} is not an integer") from None
        if least is not None and number < least:
            raise Misuse(f"{name}: {number} is less than {least}")
        if most is not None and number > most:
            raise Misuse(f"{name}: {number} is more than {most}")
        return number

    return read


Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", parser=read_id, show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="ID…", parser=read_id, show_default=False)]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="ID…", parser=read_id, show_default=False)]
Limit = Annotated[
    int, typer.Option(parser=whole("--limit", 1, 10_000), metavar="N", help="Most jobs to list, up to 10000.")
]
OneType = Annotated[str | None, typer.Option("--type", help="Only jobs of this type.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it, only tell what would be done.")]


def site_of(context: typer.Context) -> Site:
    """Return where the queue is, by the options before the command."""
    from jobqd.cli.session import Site  # noqa: PLC0415 - a call for help alone must start at once

    return Site(*context.obj)
