"""Importing an application's handlers from real files, and what is said when that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqd.errors import ConfigError, StartError
from jobqd.handlers import explained, load_handlers
from jobqd.handlers.loading import EXAMPLE

GOOD = """
from jobqd.handlers import Handlers
from helper_of_app import NAME
handlers = Handlers()
@handlers.job(NAME)
async def work(job, n: int): ...
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Path]:
    modules, path = set(sys.modules), list(sys.path)
    (tmp_path / "helper_of_app.py").write_text("NAME = 'work'\n")
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(app: Path, text: str, name: str = "app_tasks") -> None:
    (app / f"{name}.py").write_text(text)


def problem(app: Path, *specs: str, example: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        load_handlers(specs, app)
    message = str(caught.value)
    assert message.endswith(EXAMPLE) is example
    return message


def test_several_specs_become_one_handlers(app: Path) -> None:
    write(app, GOOD)
    (app / "app_pack").mkdir()
    (app / "app_pack" / "__init__.py").touch()
    (app / "app_pack" / "more.py").write_text(
        "from jobqd.handlers import Handlers\nclass box:\n    jobs = Handlers()\n@box.jobs.job\ndef other(): ...\n"
    )
    loaded = load_handlers(["app_tasks:handlers", " app_pack.more:box.jobs "], app)
    assert loaded.types == ("work", "other")
    assert sys.path[0] == str(app)
    assert sys.path.count(str(app)) == 1
    mine = sys.modules["app_tasks"].handlers
    assert mine.types == ("work",)
    assert loaded.get("work") is mine.get("work")


def test_the_example_works_as_it_is_printed(app: Path) -> None:
    lines = EXAMPLE.splitlines()[2:]
    text = "\n".join(line.removeprefix("    ") for line in lines)
    write(
        app,
        text.replace(
            "from jobqd import Handlers, Job",
            "from jobqd.handlers import Handlers\nfrom jobqd.job import Job",
        ),
    )
    assert load_handlers(["app_tasks:handlers"], app).types == ("send_mail",)


def test_no_such_module(app: Path) -> None:
    write(app, GOOD)
    message = problem(app, "app_task:handlers")
    assert 'there is no module "app_task"; did you mean "app_tasks"?' in message
    assert f"looked in app_dir {app}" in message
    assert 'there is no module "app_task";' in problem(app, "app_task.deep.er:handlers")
    assert 'there is no module "app_tasks.deep"' in problem(app, "app_tasks.deep:handlers")


def test_no_such_directory(app: Path) -> None:
    assert f"app_dir: {app / 'gone'} is not a directory" in problem(app / "gone", "x:y", example=False)


@pytest.mark.parametrize("spec", ["app_tasks", "app_tasks:", ":handlers", "app tasks:x", "a/b.py:handlers", ""])
def test_not_a_spec(app: Path, spec: str) -> None:
    assert "not package.module:attribute" in problem(app, spec)


def test_no_such_attribute(app: Path) -> None:
    write(app, GOOD.replace("handlers =", "jobs =").replace("@handlers", "@jobs"))
    message = problem(app, "app_tasks:handlers")
    assert f'app_tasks ({app / "app_tasks.py"}) has no "handlers"; did you mean "jobs"?' in message


def test_not_a_handlers_object(app: Path) -> None:
    write(app, GOOD)
    assert f"work in {app / 'app_tasks.py'} is a Handler, not a jobqd.Handlers object" in problem(app, "app_tasks:work")


def test_nothing_registered(app: Path) -> None:
    write(app, "from jobqd.handlers import Handlers\nhandlers = Handlers()\n")
    assert "no handlers are registered" in problem(app, "app_tasks:handlers")


def test_an_import_that_raises_may_be_tried_again_and_shows_the_line(app: Path) -> None:
    write(app, "def connect():\n    raise ConnectionRefusedError('no database at db:5432')\n\nconnect()\n")
    with pytest.raises(StartError) as caught:
        load_handlers(["app_tasks:handlers"], app)
    assert str(caught.value) == (
        "handlers: app_tasks:handlers: importing app_tasks raised ConnectionRefusedError: no database at db:5432"
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    message = explained(caught.value)
    assert f"{app / 'app_tasks.py'}:4 in <module>\n    connect()" in message
    assert f"{app / 'app_tasks.py'}:2 in connect\n    raise Conn" in message
    assert message.endswith("\n  ConnectionRefusedError: no database at db:5432")
    assert "importlib" not in message


def test_a_module_that_ends_the_process_may_be_tried_again_too(app: Path) -> None:
    write(app, "import sys\nsys.exit('no configuration yet')\n")
    with pytest.raises(StartError, match="SystemExit: no configuration yet"):
        load_handlers(["app_tasks:handlers"], app)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import not_installed_here\n", "No module named 'not_installed_here'"),
        ("from helper_of_app import MISSPELT\n", "cannot import name 'MISSPELT'"),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_what_no_second_try_can_mend_is_a_wrong_configuration(app: Path, text: str, words: str) -> None:
    write(app, text)
    message = problem(app, "app_tasks:handlers", example=False)
    assert words in message
    assert "app_tasks.py" in message


def test_a_bad_option_shows_its_line(app: Path) -> None:
    write(app, GOOD.replace("(NAME)", "(NAME, timeout='soon')"))
    message = problem(app, "app_tasks:handlers", example=False)
    assert 'handler "work": timeout="soon" is not a duration' in message
    assert message.endswith(f"at {app / 'app_tasks.py'}:5")


def test_a_hint_that_cannot_work_fails_at_start(app: Path) -> None:
    write(app, GOOD.replace("n: int", "n: 'Nowhere'"))
    message = problem(app, "app_tasks:handlers", example=False)
    assert 'parameter n: the hint "Nowhere" is not known' in message
