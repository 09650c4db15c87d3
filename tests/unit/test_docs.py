"""The documents for users say what the code does: names are compared, examples compiled, those without Redis run."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer

import jobqd
from jobqd.cli.jobq import app as jobq
from jobqd.client import JobHandle, Queue, SyncJobHandle, SyncQueue
from jobqd.duties.status import Presence
from jobqd.handlers import Handlers
from jobqd.job import DAEMON_FIELDS, Job
from jobqd.keys import Keys
from jobqd.programs import ProgramOptions
from jobqd.settings.model import job_setting_names, setting_names
from tests.support.documents import DOCUMENTS, Document

PROTOCOL, HANDLERS, CLIENTS = Document("docs/protocol.md"), Document("docs/handlers.md"), Document("docs/clients.md")
SCRIPTS = Path(jobqd.__file__).parent / "scripts"
LUA = {path.stem: path.read_text() for path in SCRIPTS.glob("*.lua")}
CODE = re.compile(r"`([^`]+)`")
EVERY_PYTHON_BLOCK = [block for document in DOCUMENTS for block in document.blocks("python")]


def names(column: list[str]) -> list[str]:
    """The names in a table's first column: one cell may hold several."""
    return [name for cell in column for name in CODE.findall(cell)]


# --------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("block", EVERY_PYTHON_BLOCK, ids=str)
def test_every_python_example_compiles_and_imports_what_exists(block):
    tree = compile(block.text, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jobqd":
            missing = [alias.name for alias in node.names if not hasattr(jobqd, alias.name)]
            assert not missing


@pytest.fixture
def module(request) -> Iterator[types.ModuleType]:
    """An empty module, known to the interpreter: dataclasses and hints look themselves up there."""
    made = types.ModuleType(f"example_{abs(hash(request.node.name))}")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


@pytest.mark.parametrize("block", HANDLERS.blocks("python"), ids=str)
def test_every_example_of_the_handlers_guide_runs(block, module):
    exec(compile(block.text, str(block), "exec"), module.__dict__)
    handlers = module.__dict__.get("handlers")
    if handlers is not None:
        assert isinstance(handlers, Handlers)
        handlers.prepare()
        assert len(handlers)


# ------------------------------------------------------------------------------------------------- docs/protocol.md


def test_the_protocol_names_every_key_and_no_other():
    keys = Keys()
    expected = {
        keys.job("ID"), keys.ready, keys.active, keys.scheduled, keys.held, keys.held_for("REASON"), keys.missing,
        keys.dead, keys.dead_ids, keys.finished, keys.counters, keys.daemons, keys.daemon("WORKER"),
        keys.claim("WORKER"), keys.registered,
    }  # fmt: skip
    assert set(names(PROTOCOL.column("key"))) == expected
    assert set(names(PROTOCOL.column("channel"))) == {keys.progress("ID"), keys.control}


def test_the_list_of_keys_is_that_of_the_code():
    """A key added to keys.Keys must come into the test above, and so into the document."""
    told = {
        "active", "claim_prefix", "control", "counters", "daemon_prefix", "daemons", "dead", "dead_ids", "finished",
        "held", "job_prefix", "missing", "progress_prefix", "ready", "registered", "scheduled",
    }  # fmt: skip
    assert set(Keys.__slots__) - {"base", "prefix"} == told


def test_the_protocol_names_every_field_of_the_daemon_and_no_other():
    underscored = {name for text in LUA.values() for name in re.findall(r"""['.](_[a-z_]+)\b""", text)}
    assert underscored >= {"_due_at", "_ended", "_history"}
    assert set(names(PROTOCOL.column("field"))) == DAEMON_FIELDS | underscored


def test_the_protocol_names_every_script_and_no_other():
    assert set(names(PROTOCOL.column("script"))) == set(LUA)


def test_the_protocol_names_every_counter_and_no_other():
    counters = {name for text in LUA.values() for name in re.findall(r"'HINCRBY', counters, '(\w+)'", text)}
    counters |= set(re.findall(r"\badd\('(\w+)'\)", LUA["settle"]))
    by_outcome = re.search(r"local COUNTER = \{(.*)\}", LUA["settle"])
    assert by_outcome is not None
    counters |= set(re.findall(r"'(\w+)'", by_outcome.group(1)))
    assert set(names(PROTOCOL.column("counter"))) == counters


def test_the_protocol_names_every_answer_of_settle_and_no_other():
    returns = re.search(r"RETURNS\s+one text a run: (.*)", LUA["settle"])
    assert returns is not None
    answers = {word.split(" ")[0] for word in returns.group(1).split(" | ")}
    assert set(names(PROTOCOL.column("answer"))) == answers


def test_the_protocol_names_every_status_and_no_other():
    own = set(re.findall(r"= '(\w+)'", re.search(r"local STATUS = \{(.*)\}", LUA["settle"]).group(1)))
    column = set(names(PROTOCOL.column("status"))) - {"held"}
    assert column == own | {"processing", "cancelled"}


def test_the_protocol_describes_presence_as_daemons_write_it():
    presence = Presence("default", 1, ("mail",), 0.0)
    assert set(names(PROTOCOL.column("field", nth=1))) == set(presence.fields())


def test_the_protocol_names_every_setting_and_no_other():
    without = re.search(r"^Without effect on the data: (.*?)Of single types, besides those above: (.*?)$",
                        PROTOCOL.text, re.DOTALL | re.MULTILINE)  # fmt: skip
    assert without is not None
    for_all = set(names(PROTOCOL.column("setting"))) | set(CODE.findall(without.group(1)))
    for_types = set(CODE.findall(without.group(2)))
    assert for_all == set(setting_names())
    assert for_types == set(job_setting_names()) - for_all


def test_messages_and_history_are_written_as_the_protocol_shows_them():
    """Each indented JSON line of the document is JSON, written without a space, as the code writes it."""
    lines = [line.strip() for line in PROTOCOL.text.splitlines() if line.startswith("    {")]
    assert len(lines) == 4
    for line in lines:
        assert json.dumps(json.loads(line), separators=(",", ":")) == line
    assert any('{"status":"processing"}' in LUA["claim"] and line == '{"status":"processing"}' for line in lines)


# ------------------------------------------------------------------------------------ docs/handlers.md, docs/clients.md


def test_the_handlers_guide_names_every_option_of_the_decorator_and_no_other():
    parameters = list(inspect.signature(Handlers.job).parameters)
    assert names(HANDLERS.column("option")) == parameters[2:-1]  # the last takes what is misspelled


def test_the_handlers_guide_names_every_option_of_exec_and_no_other():
    assert names(HANDLERS.column("option", nth=1)) == [field.name for field in fields(ProgramOptions)]


def test_the_handlers_guide_names_everything_a_job_has():
    rows = HANDLERS.text.partition("\n## The job\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(?:await )?job\.(\w+)", rows))
    assert told == {name for name in dir(Job) if not name.startswith("_")}


def test_the_clients_guide_names_every_option_of_enqueue_and_no_other():
    for client in (Queue, SyncQueue):
        parameters = list(inspect.signature(client.enqueue).parameters)
        assert names(CLIENTS.column("option")) == parameters[3:]


def test_the_clients_guide_names_everything_a_handle_has():
    told = set(re.findall(r"\bhandle\.(\w+)", CLIENTS.text))
    for handle in (JobHandle, SyncJobHandle):
        assert told == {name for name in dir(handle) if not name.startswith("_")}


def test_the_clients_guide_names_only_errors_that_exist():
    for error in names(CLIENTS.column("error")):
        assert issubclass(getattr(jobqd, error, None) or getattr(__import__("builtins"), error), Exception)


def test_the_clients_guide_names_every_command_of_jobq_and_no_other():
    words = [cell.removeprefix("jobq ").split(" ") for cell in names(CLIENTS.column("command"))]
    told = {" ".join(word for word in row if word.islower() and word.isalpha()) for row in words}
    assert told == set(_commands(typer.main.get_command(jobq)))


def _commands(group: object, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def test_documents_refer_only_to_documents_and_headings_that_exist():
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:docs|config)/[\w.]+)`", document.text):
            assert (document.root / path).exists(), f"{document.path}: {path}"
        anchors = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", document.text, re.MULTILINE)
        }
        for anchor in re.findall(r"\]\(#([\w-]+)\)", document.text):
            assert anchor in anchors, f"{document.path}: #{anchor}"
