"""What a handler's function takes: its job parameter, its arguments, and what their hints mean."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobqd.errors import ConfigError
from jobqd.handlers.explain import shown
from jobqd.job import Job, SyncJob

_JOB_TEXT = re.compile(r"(?:[\w.]*Optional\[\s*)?(?:[\w.]*\.)?(Sync)?Job(?:\s*\|\s*None|\s*\])?")
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter that a job's data fills."""

    name: str
    annotation: Any
    required: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """A handler's parameters, and the names its annotations are written in."""

    job_parameter: str | None
    arguments: tuple[Argument, ...]
    extra: Argument | None
    """The `**kwargs` parameter, if there is one."""
    namespace: Mapping[str, Any]

    def hint(self, argument: Argument) -> Any:
        """Return an argument's type hint; raises ConfigError if its text names something unknown."""
        hint = _resolved(argument.annotation, self.namespace)
        if hint is _UNKNOWN:
            raise ConfigError(
                f"parameter {argument.name}: the hint {shown(argument.annotation)} is not known at run time: "
                "import what it names at module level, not only under TYPE_CHECKING"
            )
        return hint


def read_signature(function: Callable[..., Any], is_async: bool, scope: Mapping[str, Any]) -> Signature:
    """Return what a function takes; `scope` holds the local names around its definition.

    Raises ConfigError for parameters that a job cannot fill.
    """
    namespace = {**getattr(_innermost(function), "__globals__", {}), **scope}
    job_parameter: str | None = None
    extra: Argument | None = None
    arguments = []
    for position, parameter in enumerate(_parameters(function)):
        _check_kind(parameter, position)
        argument = Argument(parameter.name, _annotation(parameter), parameter.default is parameter.empty)
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = argument
        elif _is_job(argument, namespace, is_async):
            if job_parameter is not None:
                both = f"{job_parameter} and {argument.name}"
                raise ConfigError(f"parameters {both} both take the job: keep one of them")
            job_parameter = argument.name
        else:
            arguments.append(argument)
    return Signature(job_parameter, tuple(arguments), extra, namespace)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigError("Python cannot tell its parameters: wrap it in a function of your own") from None


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    while True:
        inner: Callable[..., Any] = inspect.unwrap(function)
        if isinstance(inner, partial):
            inner = inner.func
        if inner is function:
            return function
        function = inner


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation


def _check_kind(parameter: inspect.Parameter, position: int) -> None:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigError(f"parameter {parameter.name} is positional-only: remove the `/`, arguments come by name")
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise ConfigError(
            f"parameter *{parameter.name} cannot be filled, because arguments come by name: take a list, "
            f"as in `{parameter.name}: list[str]`"
        )
    if position == 0 and parameter.name in ("self", "cls"):
        raise ConfigError(
            f"parameter {parameter.name}: a handler is a function, not a method in a class body: "
            "move it out of the class"
        )


def _resolved(annotation: Any, namespace: Mapping[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, dict(namespace), {}, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - evaluates whatever text the application wrote
        return _UNKNOWN


def _is_job(argument: Argument, namespace: Mapping[str, Any], is_async: bool) -> bool:
    """Whether it takes the job, by name or by hint; raises ConfigError if the hint contradicts that."""
    hint = _resolved(argument.annotation, namespace)
    kind = _job_kind(argument.annotation, hint)
    if kind is None:
        if argument.name != "job":
            return False
        if _contradicts(hint):
            raise ConfigError(
                f"parameter job is annotated {shown(argument.annotation)}, but it is always given the job "
                "itself: give the argument another name"
            )
        return True
    expected = Job if is_async else SyncJob
    if kind is not expected:
        function = "an async def" if is_async else "a plain def"
        raise ConfigError(
            f"parameter {argument.name} is annotated {kind.__name__}, but {function} handler is given "
            f"a {expected.__name__}: change the hint"
        )
    return True


def _job_kind(annotation: Any, hint: Any) -> type[Job] | type[SyncJob] | None:
    """Return Job or SyncJob where a hint means one of them, `Job | None` and unresolvable texts included."""
    if hint is _UNKNOWN:
        match = _JOB_TEXT.fullmatch(annotation.strip()) if isinstance(annotation, str) else None
        return None if match is None else SyncJob if match.group(1) else Job
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    for member in typing.get_args(hint) if _is_union(hint) else (hint,):
        for kind in (Job, SyncJob):
            if isinstance(member, type) and issubclass(member, kind):
                return kind
    return None


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _contradicts(hint: Any) -> bool:
    """Whether a hint is a type of plain data; a Protocol or a class of the application's may be meant."""
    return (typing.get_origin(hint) or hint) in (str, int, float, bool, bytes, dict, list, tuple, set)
