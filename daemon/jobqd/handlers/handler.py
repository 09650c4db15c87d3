"""One handler: the function of a job type, what it takes, and what it was told."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar

from jobqd.errors import ConfigError
from jobqd.handlers.binding import Binder
from jobqd.handlers.explain import shown
from jobqd.handlers.options import HandlerOptions
from jobqd.handlers.signature import Signature, read_signature

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobArgs:
    """A job type with its checked payload, ready to enqueue; made by `Handler.args`."""

    type: str
    payload: dict[str, Any]


class Handler(Generic[P, R]):
    """The function of one job type, still callable as written: `await render(job, source="in.mp4")`."""

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self, job_type: str, function: Callable[P, R], options: HandlerOptions, scope: Mapping[str, Any]
    ) -> None:
        functools.update_wrapper(self, function)
        self.type = job_type
        self.function = function
        self.options = options
        self.is_async = inspect.iscoroutinefunction(function)
        """Whether it runs on the event loop; a plain `def` runs in a thread."""
        self._signature = self._signed(scope)
        self.job_parameter = self._signature.job_parameter
        """The name of the parameter that takes the job, or None."""
        if self.is_async and hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as a unit test does: nothing is checked or converted."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Handler {self.type}: {self.place}>"

    @property
    def wants_job(self) -> bool:
        """Whether it takes the job itself."""
        return self.job_parameter is not None

    @property
    def place(self) -> str:
        """Where the function is, for people: "shop.mail.send (shop/mail.py:12)"."""
        return where(self.function)

    def args(self, **arguments: Any) -> JobArgs:
        """Return the arguments as a job to enqueue, checked and converted by the type hints.

        Dates, UUIDs, enums, dataclasses and pydantic models become their JSON form. Arguments left out keep
        the function's defaults. Raises PayloadError naming an argument that is unknown, missing or unfit.
        """
        return JobArgs(self.type, self.binder.payload(arguments))

    def bind(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the keyword arguments for a job's hash, without the job and without those left to defaults.

        Raises ArgumentError naming the argument, its value and what is wrong.
        """
        return self.binder.bind(fields)

    def invoke(self, job: Any, arguments: Mapping[str, Any]) -> R:
        """Call the function with what `bind` returned, and with the job where it takes one."""
        function: Callable[..., R] = self.function
        if self.job_parameter is None:
            return function(**arguments)
        return function(**{self.job_parameter: job}, **arguments)

    @cached_property
    def binder(self) -> Binder:
        """The validators, built at first use, when every name in the hints exists; raises ConfigError."""
        try:
            return Binder(self.type, self._signature)
        except ConfigError as error:
            raise self._located(error) from None

    def _signed(self, scope: Mapping[str, Any]) -> Signature:
        try:
            _check_function(self.function)
            return read_signature(self.function, self.is_async, scope)
        except ConfigError as error:
            raise self._located(error) from None

    def _located(self, error: ConfigError) -> ConfigError:
        return ConfigError(f"handler {shown(self.type)}, {self.place}: {error}")


def _check_function(function: Any) -> None:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError("it has a yield, so it would never run: return the result instead")
    if not inspect.isroutine(function) and not isinstance(function, functools.partial):
        raise ConfigError("it is not a function: decorate a def or an async def")


def where(function: Any) -> str:
    """Return where a function is, for people: "shop.mail.send (shop/mail.py:12)"."""
    inner = inspect.unwrap(function)
    name = f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', repr(inner))}"
    code = getattr(inner, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"
