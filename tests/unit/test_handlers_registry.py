"""Registration: what the decorators accept, keep and refuse."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from jobqd.errors import ConfigError
from jobqd.handlers import DeadLetter, HandlerOptions, Handlers
from jobqd.job import Job, SyncJob


async def test_a_handler_stays_the_function_it_was() -> None:
    handlers = Handlers()

    @handlers.job("video_render", timeout="2h")
    async def render(job: Job | None, source: str, width: int = 1280) -> dict[str, Any]:
        """Render a film."""
        return {"source": source, "width": width}

    assert await render(None, source="in.mp4") == {"source": "in.mp4", "width": 1280}
    assert (render.type, render.__name__, render.__doc__) == ("video_render", "render", "Render a film.")
    assert inspect.iscoroutinefunction(render.__wrapped__)
    assert (render.is_async, render.wants_job, render.job_parameter) == (True, True, "job")
    assert handlers.get("video_render") is render
    assert handlers.types == ("video_render",)
    assert list(handlers) == [render]
    assert "video_render" in handlers
    assert handlers.get("other") is None
    assert len(handlers) == 1


def test_a_plain_def_stays_a_plain_def() -> None:
    handlers = Handlers()

    @handlers.job
    def thumbnail(path: str) -> str:
        return path.upper()

    assert thumbnail("a") == "A"
    assert (thumbnail.type, thumbnail.is_async, thumbnail.wants_job) == ("thumbnail", False, False)
    assert thumbnail.options == HandlerOptions()


def test_empty_parentheses_take_the_name_too() -> None:
    handlers = Handlers()

    @handlers.job()
    def thumbnail() -> None: ...

    assert thumbnail.type == "thumbnail"


def test_options_are_numbers_and_frozen() -> None:
    def work() -> None: ...

    options = (
        Handlers()
        .job(
            "x", timeout="2h", max_attempts=5, concurrency=2, retry_delay="500ms", retry_max_delay=60,
            job_ttl="1d", drain_timeout=0, stall_timeout="1m",
        )(work)
        .options
    )  # fmt: skip
    assert options == HandlerOptions(7200.0, 5, 2, 0.5, 60.0, 86400.0, 0.0, 60.0)
    with pytest.raises(FrozenInstanceError):
        options.timeout = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("timeout", "soon", "is not a duration"),
        ("timeout", 0, "more than 0"),
        ("timeout", -1, "is not a duration"),
        ("job_ttl", float("nan"), "is not a duration"),
        ("stall_timeout", "0s", "more than 0"),
        ("retry_delay", "1 fortnight", "is not a duration"),
        ("retry_max_delay", True, "is not a duration"),
        ("drain_timeout", [], "is not a duration"),
        ("max_attempts", 0, "whole number, 1 or more"),
        ("max_attempts", "3", "whole number, 1 or more"),
        ("concurrency", 1.5, "whole number, 1 or more"),
        ("concurrency", True, "whole number, 1 or more"),
        ("process", "yes", "must be True or False"),
        ("process", 1, "must be True or False"),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Handlers().job("video_render", **{option: value})
    assert str(caught.value).startswith(f'handler "video_render": {option}=')
    assert words in str(caught.value)


def test_every_option_of_the_decorator_is_kept() -> None:
    taken = set(inspect.signature(Handlers.job).parameters) - {"self", "job_type", "others"}
    assert taken == {field.name for field in fields(HandlerOptions)}


def test_a_handler_may_ask_for_a_process_of_its_own() -> None:
    handlers = Handlers()

    @handlers.job("parse", process=True)
    def parse() -> None: ...

    @handlers.job
    def other() -> None: ...

    assert parse.options == HandlerOptions(process=True)
    assert not other.options.process


@pytest.mark.parametrize("job_type", ["", "two words", "a\nb", "x" * 129, 7, "tab\t"])
def test_types_that_cannot_be_names(job_type: Any) -> None:
    with pytest.raises(ConfigError, match="is not a job type"):
        Handlers().job(job_type)


def positional_only(a: int, /) -> None: ...
def star(*paths: str) -> None: ...
def method(self: Any, a: int) -> None: ...
def two_jobs(job: SyncJob, run: SyncJob) -> None: ...
def wrong_job(run: Job) -> None: ...
async def wrong_sync_job(run: SyncJob) -> None: ...
async def data_called_job(job: str) -> None: ...
async def yields() -> AsyncIterator[None]:
    yield


class Thing:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (positional_only, "parameter a is positional-only"),
        (star, r"parameter \*paths cannot be filled"),
        (method, "not a method in a class body"),
        (two_jobs, "parameters job and run both take the job"),
        (wrong_job, "parameter run is annotated Job, but a plain def handler is given a SyncJob"),
        (wrong_sync_job, "annotated SyncJob, but an async def handler is given a Job"),
        (data_called_job, "always given the job itself"),
        (yields, "it has a yield"),
        (Thing(), "it is not a function"),
    ],
)
def test_functions_that_cannot_be_handlers(function: Any, words: str) -> None:
    handlers = Handlers()
    with pytest.raises(ConfigError, match=f'handler "x", .*{words}'):
        handlers.job("x")(function)
    assert len(handlers) == 0


def test_the_job_may_be_anywhere_and_is_passed_by_its_name() -> None:
    handlers = Handlers()

    @handlers.job("a")
    def last(n: int, run: SyncJob) -> tuple[int, SyncJob]:
        return n, run

    @handlers.job("b")
    def none(n: int) -> int:
        return n

    token: Any = object()
    assert last.invoke(token, last.bind({"n": "7"})) == (7, token)
    assert none.invoke(token, none.bind({"n": "7"})) == 7


def test_two_types_for_one_function_and_two_functions_for_one_type() -> None:
    handlers = Handlers()

    @handlers.job("new_name")
    @handlers.job("old_name")
    def work(n: int) -> int:
        return n

    assert work(3) == 3
    assert handlers.types == ("old_name", "new_name")

    def other() -> None: ...

    with pytest.raises(ConfigError, match=r'"old_name" has two handlers: .*work .*py:\d+\) and .*other .*py:\d+\)'):
        handlers.job("old_name")(other)


def test_a_partial_and_a_wrapped_function() -> None:
    handlers = Handlers()

    def work(a: int, b: int) -> int:
        return a + b

    @functools.wraps(work)
    def wrapper(*args: Any, **kwargs: Any) -> int:
        return work(*args, **kwargs)

    handler: Any = handlers.job("p")(functools.partial(work, b=1))
    assert handler.invoke(None, handler.bind({"a": "2"})) == 3
    assert handlers.job("w")(wrapper).bind({"a": "2", "b": "3"}) == {"a": 2, "b": 3}
    with pytest.raises(ConfigError, match="has no name"):
        handlers.job(functools.partial(work, b=1))


async def test_arounds_lifespan_and_hooks() -> None:
    handlers = Handlers()
    seen: list[Any] = []

    @handlers.around
    async def outer(job: Any) -> AsyncIterator[None]:
        seen.append(("in", job))
        yield
        seen.append(("out", job))

    @handlers.around
    @asynccontextmanager
    async def inner(job: Any) -> AsyncIterator[None]:
        seen.append(("inner", job))
        yield

    @handlers.lifespan
    async def state() -> AsyncIterator[str]:
        yield "db"

    @handlers.on_dead
    async def report(dead: DeadLetter) -> None:
        seen.append(dead.id)

    assert inspect.isasyncgenfunction(outer)
    first, second = handlers.arounds
    async with first(1), second(1):
        seen.append("run")
    assert seen == [("in", 1), ("inner", 1), "run", ("out", 1)]
    assert handlers.lifespan_function is not None
    async with handlers.lifespan_function() as value:
        assert value == "db"
    await handlers.dead_hooks[0](DeadLetter("id", "t", {}, "e", "E", "", 3))
    assert seen[-1] == "id"
    with pytest.raises(ConfigError, match=r"two lifespans: .*state .* and .*state"):
        handlers.lifespan(state)


def test_wrong_kinds_of_function() -> None:
    handlers = Handlers()
    wrong: Any

    async def no_yield(job: Any) -> None: ...
    async def no_parameter() -> AsyncIterator[None]:
        yield

    async def one_parameter(job: Any) -> AsyncIterator[None]:
        yield

    def plain(dead: DeadLetter) -> None: ...

    for wrong in (no_yield, no_parameter, plain, 7):
        with pytest.raises(ConfigError, match=r"@handlers.around: .* must be an async def with a yield"):
            handlers.around(wrong)
    for wrong in (no_yield, one_parameter):
        with pytest.raises(ConfigError, match=r"@handlers.lifespan: .* must be an async def with a yield"):
            handlers.lifespan(wrong)
    for wrong in (plain, no_parameter, one_parameter):
        with pytest.raises(ConfigError, match=r"@handlers.on_dead: .* must be an async def of one parameter"):
            handlers.on_dead(wrong)
    assert handlers.arounds == ()
    assert handlers.lifespan_function is None
    assert handlers.dead_hooks == ()


def filled(job_type: str) -> Handlers:
    handlers = Handlers()

    @handlers.job(job_type)
    def work() -> None: ...

    @handlers.around
    async def around(job: Any) -> AsyncIterator[None]:
        yield

    @handlers.lifespan
    async def life() -> AsyncIterator[None]:
        yield

    @handlers.on_dead
    async def dead(letter: DeadLetter) -> None: ...

    return handlers


def test_include() -> None:
    whole, part = Handlers(), filled("a")
    whole.include(part)
    whole.include(part)
    assert whole.types == ("a",)
    assert whole.lifespan_function is part.lifespan_function
    assert (len(whole.arounds), len(whole.dead_hooks)) == (1, 1)
    with pytest.raises(ConfigError, match="two lifespans"):
        whole.include(filled("b"))
    with pytest.raises(ConfigError, match='"a" has two handlers'):
        whole.include(filled("a"))
    with pytest.raises(ConfigError, match=r"give it a jobqd\.Handlers"):
        whole.include(7)  # type: ignore[arg-type]
    assert whole.types == ("a",)
    assert (len(whole.arounds), len(whole.dead_hooks)) == (1, 1)


def test_an_option_that_there_is_not_is_named_with_the_one_that_was_meant() -> None:
    handlers = Handlers()
    with pytest.raises(ConfigError, match=r'^handler "x": there is no option timeuot; did you mean timeout\?$'):
        handlers.job("x", timeuot="2h")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="there is no option colour; there are timeout, max_attempts, "):
        handlers.job("x", colour="red")  # type: ignore[call-overload]
    assert not len(handlers)
