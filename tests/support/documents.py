"""The documents as data: their fenced blocks and the columns of their tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, and its text."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Document:
    """One Markdown file of the repository."""

    path: str
    root: Path = ROOT

    @cached_property
    def text(self) -> str:
        return (self.root / self.path).read_text()

    def blocks(self, language: str) -> list[Block]:
        """Return the fenced blocks of a language, in order."""
        return [
            Block(self.path, self.text.count("\n", 0, match.start()) + 1, match.group(2))
            for match in _FENCE.finditer(self.text)
            if match.group(1) == language
        ]

    def column(self, head: str, nth: int = 0) -> list[str]:
        """Return the cells below the nth table whose first head is this."""
        tables = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", self.text, re.MULTILINE)
        assert len(tables) > nth, f"{self.path} has no table number {nth} headed {head!r}"
        return [row.split("|")[1].strip() for row in tables[nth].splitlines()]


DOCUMENTS = [
    Document(str(path.relative_to(ROOT))) for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
]
"""README.md and everything in docs."""
