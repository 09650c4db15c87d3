"""Options that stand on the wrong side of the command, and where they belong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup

from jobqd.cli.options import Misuse


class PlacedGroup(TyperGroup):
    """The commands, and the options that stand before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what stands before the command. Raises Misuse for an option of a command."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = _unknown(error)
            having = [name for name, command in self.commands.items() if _has(command.params, option)]
            if not having:
                raise
            meant = next((word for word in words if word in having), having[0])
            raise Misuse(f"{option}: write it after the command, as in jobq {meant} {option}") from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named. Raises Misuse for an option that stands before the commands."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            option = _unknown(error)
            if not _has(self.params, option):
                raise
            raise Misuse(
                f"{option}: write it before the command, as in jobq {option} … {ctx.invoked_subcommand}"
            ) from None


def _unknown(error: Exception) -> str | None:
    """Return the option that a command has not, if this error says so; its class depends on the version of typer."""
    return getattr(error, "option_name", None) if type(error).__name__ == "NoSuchOption" else None


def _has(parameters: Iterable[Any], option: str | None) -> bool:
    return any(option in parameter.opts for parameter in parameters)
