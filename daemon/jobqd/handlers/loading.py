"""Importing the application's handlers, and saying precisely what went wrong when that fails."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jobqd.errors import ConfigError, StartError
from jobqd.handlers.explain import cut, type_name
from jobqd.handlers.registry import Handlers

_FRAMES_SHOWN = 5
_PACKAGE = str(Path(__file__).parent)

EXAMPLE = """A handlers file, as in handlers.py:

    from jobqd import Handlers, Job

    handlers = Handlers()


    @handlers.job("send_mail", timeout="30s")
    async def send_mail(job: Job, to: str, subject: str = "Hello") -> dict:
        job.log.info("sending", to=to)
        return {"sent": True}
"""
"""Shown below errors of a first handlers file; one that raises is past that."""


def load_handlers(specs: Sequence[str], app_dir: Path) -> Handlers:
    """Import `package.module:attribute` specs, `app_dir` first on `sys.path`, as one Handlers.

    All validators are built, so hints that cannot work fail here. Raises ConfigError saying what was not
    found and where it was looked for, or which line cannot be used; and StartError for what the application's code
    raised by itself, such as of a database that is down: another try may get further.
    """
    directory = app_dir.resolve()
    if not directory.is_dir():
        raise ConfigError(f"app_dir: {directory} is not a directory: set it to where the handlers are")
    _put_first(str(directory))
    merged = Handlers()
    for spec in specs:
        merged.include(_load(spec.strip(), directory))
    if not len(merged):
        problem = "no handlers are registered: decorate at least one function with @handlers.job"
        raise _error(", ".join(specs), problem)
    merged.prepare()
    return merged


def _put_first(directory: str) -> None:
    if sys.path[:1] != [directory]:
        sys.path[:] = [directory, *(entry for entry in sys.path if entry != directory)]
    importlib.invalidate_caches()


def _load(spec: str, directory: Path) -> Handlers:
    module_name, _, attribute = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise _error(spec, "this is not package.module:attribute, as in shop.tasks:handlers")
    module = _import(spec, module_name, directory)
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise _error(spec, f'{module_name} ({module.__file__}) has no "{attribute}"{_near(name, found)}')
        found = getattr(found, name)
    if not isinstance(found, Handlers):
        is_what = f"is {type_name(found)}, not a jobqd.Handlers object"
        raise _error(spec, f"{attribute} in {module.__file__} {is_what}")
    return found


def _import(spec: str, module_name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise _error(spec, _not_found(missing, directory)) from None
        raise _error(spec, _raised(module_name, error), example="") from None
    except ConfigError as error:
        raise ConfigError(f"handlers: {spec}: {error}{_at(error)}") from None
    except (ImportError, SyntaxError) as error:
        raise _error(spec, _raised(module_name, error), example="") from None
    except (Exception, SystemExit) as error:
        raise StartError(f"handlers: {spec}: importing {module_name} raised {_headline(error)}") from error


def explained(error: StartError) -> str:
    """Return what the application raised at its start, with the lines that it was raised from."""
    return str(error) if error.__cause__ is None else "\n".join((str(error), *_traced(error.__cause__)))


def _not_found(missing: str, directory: Path) -> str:
    last = missing.rpartition(".")[2]
    beside = [path.stem for path in directory.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    close = difflib.get_close_matches(last, beside, n=1)
    hint = f"; did you mean {_either(close)}?" if close else ""
    return (
        f'there is no module "{missing}"{hint}\n'
        f"  looked in app_dir {directory}, then in the environment {sys.prefix}\n"
        "  set app_dir to the directory that the module is in, or correct its name"
    )


def _near(name: str, owner: Any) -> str:
    handlers = [key for key, value in vars(owner).items() if isinstance(value, Handlers)]
    close = handlers or difflib.get_close_matches(name, [key for key in dir(owner) if key[:1] != "_"], n=3)
    return f"; did you mean {_either(close[:3])}?" if close else ""


def _either(names: Sequence[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


def _headline(error: BaseException) -> str:
    return cut(_final_lines(error)[0], 300)


def _raised(module_name: str, error: BaseException) -> str:
    return "\n".join((f"importing {module_name} failed:", *_traced(error)))


def _traced(error: BaseException) -> list[str]:
    lines = [f"  {line}" for frame in _frames(error)[-_FRAMES_SHOWN:] for line in _frame_lines(frame)]
    return [*lines, *(f"  {cut(line, 300)}" for line in _final_lines(error)[-8:])]


def _final_lines(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception_only(error)).rstrip().splitlines()


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the application's part of a traceback: neither the import machinery nor our own code."""
    ours = ("<frozen importlib", _PACKAGE, str(importlib.__file__))
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]


def _frame_lines(frame: traceback.FrameSummary) -> list[str]:
    place = f"{frame.filename}:{frame.lineno} in {frame.name}"
    return [place, f"  {cut(frame.line, 200)}"] if frame.line else [place]


def _at(error: BaseException) -> str:
    frames = _frames(error)
    return f"\n  at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _error(spec: str, problem: str, *, example: str = EXAMPLE) -> ConfigError:
    return ConfigError("\n\n".join(filter(None, (f"handlers: {spec or '(empty)'}: {problem}", example))))
