"""`Handlers`: the job types of an application, and what surrounds their runs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar, overload

from jobqd.errors import ConfigError
from jobqd.handlers.explain import shown
from jobqd.handlers.handler import Handler, where
from jobqd.handlers.options import HandlerOptions, OptionReader, check_type

P = ParamSpec("P")
R = TypeVar("R")

Around = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Called with the job; entered before its handler runs and left after it."""
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
"""Entered once when the daemon starts; what it yields is `job.state`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was dead-lettered, as `@handlers.on_dead` gets it."""

    id: str
    type: str
    fields: Mapping[str, str]
    """The job's hash as it was last claimed."""
    error: str
    error_type: str
    traceback: str
    attempts: int
    """Charged runs, the last one included."""


DeadHook = Callable[[DeadLetter], Awaitable[None]]
D = TypeVar("D", bound=DeadHook)
A = TypeVar("A", bound=Callable[[Any], AsyncIterator[Any] | AbstractAsyncContextManager[Any]])
L = TypeVar("L", bound=Callable[[], AsyncIterator[Any] | AbstractAsyncContextManager[Any]])


class Handlers:
    """The job types that a daemon runs, filled while modules are imported; a daemon reads it at start."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler[..., Any]] = {}
        self._arounds: dict[Any, Around] = {}
        self._lifespan: tuple[Any, Lifespan] | None = None
        self._dead_hooks: list[DeadHook] = []

    def __iter__(self) -> Iterator[Handler[..., Any]]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, job_type: object) -> bool:
        return job_type in self._handlers

    def get(self, job_type: str) -> Handler[..., Any] | None:
        """Return the handler of a type, or None."""
        return self._handlers.get(job_type)

    @property
    def types(self) -> tuple[str, ...]:
        """The job types, in order of registration."""
        return tuple(self._handlers)

    @property
    def arounds(self) -> tuple[Around, ...]:
        """The context managers around each run, the outermost first."""
        return tuple(self._arounds.values())

    @property
    def lifespan_function(self) -> Lifespan | None:
        """The context manager around the daemon's life, or None."""
        return None if self._lifespan is None else self._lifespan[1]

    @property
    def dead_hooks(self) -> tuple[DeadHook, ...]:
        """What to call, in this order, when a job is dead-lettered."""
        return tuple(self._dead_hooks)

    @overload
    def job(self, job_type: Callable[P, R], /) -> Handler[P, R]: ...

    @overload
    def job(
        self,
        job_type: str | None = None,
        /,
        *,
        timeout: float | str | None = None,
        max_attempts: int | None = None,
        concurrency: int | None = None,
        retry_delay: float | str | None = None,
        retry_max_delay: float | str | None = None,
        job_ttl: float | str | None = None,
        drain_timeout: float | str | None = None,
        stall_timeout: float | str | None = None,
        process: bool = False,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]: ...

    def job(  # noqa: PLR0913 - each option is a keyword of its own, so that editors and type checkers know it
        self,
        job_type: Any = None,
        /,
        *,
        timeout: float | str | None = None,
        max_attempts: int | None = None,
        concurrency: int | None = None,
        retry_delay: float | str | None = None,
        retry_max_delay: float | str | None = None,
        job_ttl: float | str | None = None,
        drain_timeout: float | str | None = None,
        stall_timeout: float | str | None = None,
        process: bool = False,
        **others: object,
    ) -> Any:
        """Register the decorated function as the handler of a job type; without a type, its name is the type.

        Times are seconds or texts such as "2h". `concurrency` caps this type's runs in one daemon;
        `stall_timeout` ends a run that reports no progress for so long; `process` gives each run a process of
        its own. Settings and the job's own fields win over these. Raises ConfigError for a value or a function
        that cannot be used, an option that there is not, or a type already taken.
        """
        scope = _scope(sys._getframe(1))
        if callable(job_type):
            return self._register(None, job_type, HandlerOptions(), scope)
        read = OptionReader("without a type" if job_type is None else check_type(job_type))
        read.refuse(others)
        options = HandlerOptions(
            timeout=read.seconds("timeout", timeout),
            max_attempts=read.count("max_attempts", max_attempts),
            concurrency=read.count("concurrency", concurrency),
            retry_delay=read.seconds("retry_delay", retry_delay, zero=True),
            retry_max_delay=read.seconds("retry_max_delay", retry_max_delay, zero=True),
            job_ttl=read.seconds("job_ttl", job_ttl),
            drain_timeout=read.seconds("drain_timeout", drain_timeout, zero=True),
            stall_timeout=read.seconds("stall_timeout", stall_timeout),
            process=read.switch("process", process),
        )
        return partial(self._register, job_type, options=options, scope=scope)

    def around(self, function: A) -> A:
        """Register an async generator function of the job, around each run: its yield is the run.

        Several nest in order of registration, the first outermost. Raises ConfigError for another kind of
        function.
        """
        self._arounds[function] = _context_manager("around", function, 1)
        return function

    def lifespan(self, function: L) -> L:
        """Register the async generator function around the daemon's life; what it yields is `job.state`.

        Raises ConfigError for another kind of function, or if there is one already.
        """
        manager = _context_manager("lifespan", function, 0)
        if self._lifespan is not None:
            raise ConfigError(_two_lifespans(self._lifespan[0], function))
        self._lifespan = (function, manager)
        return function

    def on_dead(self, function: D) -> D:
        """Register an `async def` of one DeadLetter, called after a job was dead-lettered; one of several.

        Raises ConfigError for another kind of function.
        """
        is_async: bool = inspect.iscoroutinefunction(function)  # by itself it would narrow the type
        if not is_async or not _takes(function, 1):
            raise ConfigError(
                f"@handlers.on_dead: {where(function)} must be an async def of one parameter: "
                "async def report(dead: DeadLetter) -> None"
            )
        self._dead_hooks.append(function)
        return function

    def include(self, other: Handlers) -> None:
        """Take in everything that another Handlers holds now, its arounds and hooks for all types.

        Raises ConfigError, and takes in nothing, if both have a handler for a type, or both a lifespan.
        """
        if not isinstance(other, Handlers):
            raise ConfigError(f"handlers.include({shown(other)}): give it a jobqd.Handlers object")
        for handler in other:
            self._check_free(handler)
        if self._lifespan is None:
            self._lifespan = other._lifespan
        elif other._lifespan is not None and other._lifespan[0] is not self._lifespan[0]:
            raise ConfigError(_two_lifespans(self._lifespan[0], other._lifespan[0]))
        self._handlers.update(other._handlers)
        self._arounds = {**self._arounds, **other._arounds}
        self._dead_hooks += [hook for hook in other._dead_hooks if hook not in self._dead_hooks]

    def prepare(self) -> None:
        """Build every handler's validators now, so that a hint that cannot work fails at start.

        Raises ConfigError naming the handler, the parameter and its hint.
        """
        for handler in self:
            _ = handler.binder

    def _register(
        self, job_type: str | None, function: Any, options: HandlerOptions, scope: Mapping[str, Any]
    ) -> Handler[..., Any]:
        if isinstance(function, Handler):
            function = function.function
        name = job_type if job_type is not None else getattr(function, "__name__", None)
        if name is None:
            raise ConfigError(f'{shown(function)} has no name: give its type: @handlers.job("video_render")')
        handler: Handler[..., Any] = Handler(check_type(name), function, options, scope)
        self._check_free(handler)
        self._handlers[handler.type] = handler
        return handler

    def _check_free(self, handler: Handler[..., Any]) -> None:
        taken = self._handlers.get(handler.type)
        if taken is not None and taken is not handler:
            raise ConfigError(
                f"job type {shown(handler.type)} has two handlers: {taken.place} and {handler.place}: "
                "give one of them another type"
            )


def _scope(frame: Any) -> Mapping[str, Any]:
    """Return the local names around a decorated function, for hints that are texts; none at module level."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _context_manager(decorator: str, function: Any, parameters: int) -> Any:
    inner = getattr(function, "__wrapped__", None)
    if inspect.isasyncgenfunction(inner) and inspect.isfunction(function) and _takes(function, parameters):
        return function  # it is under @asynccontextmanager already
    if not inspect.isasyncgenfunction(function) or not _takes(function, parameters):
        example = "async def with_session(job)" if parameters else "async def resources()"
        raise ConfigError(
            f"@handlers.{decorator}: {where(function)} must be an async def with a yield and "
            f"{'one parameter' if parameters else 'no parameters'}: {example}: ... yield ..."
        )
    return asynccontextmanager(function)


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _two_lifespans(first: Any, second: Any) -> str:
    return f"there are two lifespans: {where(first)} and {where(second)}: make one async generator of them"
