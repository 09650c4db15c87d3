"""docs/guarantees.md and the tests it names: neither may speak of what the other does not have."""

from __future__ import annotations

import re

from tests.support.daemon import ROOT

DOCUMENT = (ROOT / "docs/guarantees.md").read_text()
_ROW = re.compile(r"^\| (\d+) \|[^|]*\| `(\w+)[^`]*` \|", re.MULTILINE)
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def names_of(pattern: str) -> dict[str, set[str]]:
    """Return the names of the tests of each file under tests/."""
    files = sorted((ROOT / "tests").glob(pattern))
    return {str(file.relative_to(ROOT / "tests")): set(_TEST.findall(file.read_text())) for file in files}


def test_the_table_of_faults_is_that_of_the_laboratory() -> None:
    named = {f"test_row_{int(number):02}_{name}" for number, name in _ROW.findall(DOCUMENT)}
    there = set().union(*names_of("fault/test_rows_*.py").values())
    assert named == there


def test_every_row_of_the_laboratory_is_shown() -> None:
    numbers = {int(name[9:11]) for names in names_of("fault/test_rows_*.py").values() for name in names}
    assert numbers == set(range(1, 32))


def test_each_rule_for_raw_producers_names_one_test() -> None:
    section = DOCUMENT.split("### The rules for raw producers\n")[1].split("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    assert [row for row in rows if not re.fullmatch(r"\| .+ \| `[a-z]+/test_\w+\.py::test_\w+` \|", row)] == []
    assert len(set(rows)) == len({row.split(" | ")[0] for row in rows}) == len(rows)


def test_the_tests_of_the_guards_exist() -> None:
    files = names_of("*/test_*.py")
    guards = re.findall(r"`([a-z]+/test_\w+\.py)::(test_\w+)`", DOCUMENT)
    assert len(guards) > 15
    assert [f"{file}::{name}" for file, name in guards if name not in files.get(file, set())] == []
