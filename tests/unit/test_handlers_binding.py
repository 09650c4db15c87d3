"""A job's hash becomes the arguments of its handler, or a sentence a person understands."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, StrictInt

from jobqd.errors import ArgumentError, ConfigError, PayloadError
from jobqd.handlers import Handler, Handlers
from jobqd.job import DAEMON_FIELDS, Job

if TYPE_CHECKING:
    import jobqd.job as only_for_checkers

UTC = timezone.utc  # noqa: UP017 - the name is what reads well below


class Film(BaseModel):
    title: str
    minutes: int = 90


@dataclass
class Size:
    width: int
    height: int


class Colour(enum.Enum):
    RED = "red"


def handler_of(function: Any) -> Handler[..., Any]:
    return Handlers().job("video_render")(function)


async def render(job: Job, source: str, user_id: int, width: int = 1280) -> None: ...


@pytest.fixture
def video() -> Handler[..., Any]:
    return handler_of(render)


def fields(payload: str | None = None, **own: str) -> dict[str, str]:
    base = {"status": "processing", "type": "video_render", "created_at": "1763900000.12", "fence": "3"}
    return {**base, **({} if payload is None else {"payload": payload}), **own}


def refusal(handler: Handler[..., Any], **job: str) -> str:
    with pytest.raises(ArgumentError) as caught:
        handler.bind(fields(**job))
    message = str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert len(message.encode()) <= 4 * 900
    assert len(message) <= 900
    assert message.isprintable()
    return message


def test_hash_fields_alone(video: Any) -> None:
    assert video.bind(fields(source="in.mp4", user_id="7", noise="x")) == {"source": "in.mp4", "user_id": 7}


def test_payload_alone(video: Any) -> None:
    bound = video.bind(fields('{"source": "in.mp4", "user_id": "7", "width": 640}'))
    assert bound == {"source": "in.mp4", "user_id": 7, "width": 640}


def test_payload_wins_over_a_hash_field_even_one_that_does_not_fit(video: Any) -> None:
    assert video.bind(fields('{"user_id": 7}', source="a", user_id="abc")) == {"source": "a", "user_id": 7}


def test_the_last_of_two_equal_keys_wins(video: Any) -> None:
    assert video.bind(fields('{"source": "a", "source": "b", "user_id": 1}'))["source"] == "b"


def test_messages(video: Any) -> None:
    message = refusal(video, source="x", user_id="abc")
    assert message == 'video_render: argument "user_id": "abc" is not a valid integer'
    assert refusal(video, source="x") == 'video_render: argument "user_id" is missing'
    message = refusal(video, payload='{"sorce": "x", "user_id": 7}')
    assert message == 'video_render: argument "sorce" is not known; it takes source, user_id, width'
    assert refusal(video, payload="[1]").startswith('video_render: the payload "[1]" is not a JSON object')
    assert "user_id" in (message := refusal(video, payload='{"source": 1, "user_id": 7.5}'))
    assert '"source": 1 is not a text' in message


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("{'a': 1}", "the payload is not JSON"),
        ('{"source": "a"', "the payload is not JSON"),
        ('{"source": NaN}', "is not a text"),
        ('{"x": NaN}', "is not known"),
        ("[" * 100_000, "the payload is not JSON: recursion limit"),
        ('{"source": ' + "[" * 100_000, "the payload is not JSON: recursion limit"),
        ('{"source": "\udce9"}', "not valid UTF-8"),
        ('{"source": "\\ud800"}', "the payload is not JSON"),
        ('{"user_id": ' + "9" * 5000 + "}", "number out of range"),
        ('{"source": "a\x1b[31m"}', "the payload is not JSON: control character"),
        ("7", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
)
def test_payload_hazards(video: Any, payload: str, words: str) -> None:
    assert words in refusal(video, payload=payload)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "[1, NaN]"])
def test_numbers_that_json_has_not_are_refused_where_any_value_fits(value: str) -> None:
    def log(data: Any, note: str = "") -> None: ...

    handler = handler_of(log)
    assert "not JSON" in refusal(handler, payload=f'{{"data": {value}}}')
    assert handler.bind(fields('{"data": "NaN and Infinity"}')) == {"data": "NaN and Infinity"}


def test_a_long_value_and_many_problems_are_cut(video: Any) -> None:
    message = refusal(video, source="x", user_id="9" * 100 + "x" * 100_000)
    assert message.endswith("is not a valid integer")
    assert len(message) < 200
    many = "{" + ",".join(f'"{"k" * 90}{n}": 1' for n in range(500)) + "}"
    assert "and 497 more" in refusal(video, payload=many)


def test_the_texts_of_a_hash_are_converted_by_the_hints() -> None:
    def work(
        yes: bool,
        ratio: float,
        when: datetime,
        uid: UUID,
        colour: Colour,
        choice: Literal[1, 2],
        strict: StrictInt,
    ) -> None: ...

    bound = handler_of(work).bind(
        fields(
            yes="true",
            ratio="0.5",
            when="2026-01-02T03:04:05Z",
            uid=str(UUID(int=5)),
            colour="red",
            choice="2",
            strict="7",
        )
    )
    assert bound == {
        "yes": True, "ratio": 0.5, "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "uid": UUID(int=5),
        "colour": Colour.RED, "choice": 2, "strict": 7,
    }  # fmt: skip


def test_a_text_is_json_where_the_hint_is_a_container_or_a_model() -> None:
    def work(tags: list[str], film: Film, size: Size, pair: tuple[int, int], by: dict[str, int] | None) -> None: ...

    handler = handler_of(work)
    texts = {
        "tags": '["a"]',
        "film": '{"title": "Up"}',
        "size": '{"width": 1, "height": 2}',
        "pair": " [1, 2]",
    }
    assert handler.bind(fields(**texts, by="")) == {
        "tags": ["a"], "film": Film(title="Up"), "size": Size(1, 2), "pair": (1, 2), "by": None,
    }  # fmt: skip
    message = refusal(handler, **{**texts, "film": '{"title": "Up", "minutes": "x"}'}, by="null")
    assert message == 'video_render: argument "film"["minutes"]: "x" is not a valid integer'
    assert '"a,b" is not a list' in refusal(handler, **{**texts, "tags": "a,b"}, by="null")


def test_a_text_stays_a_text_where_one_fits() -> None:
    def work(a: str, b: Any, c: str | list[str], d: int | None, e) -> None: ...

    bound = handler_of(work).bind(fields(a="[1]", b="7", c='["x"]', d="", e="null"))
    assert bound == {"a": "[1]", "b": "7", "c": '["x"]', "d": None, "e": "null"}


def test_a_file_name_that_is_not_utf8_reaches_a_str_intact() -> None:
    def work(path: str) -> None: ...

    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    assert handler_of(work).bind(fields(path=name)) == {"path": name}


def test_a_text_cannot_smuggle_a_second_argument() -> None:
    def work(tags: list[int], admin: bool = False) -> None: ...

    assert "is not a list" in refusal(handler_of(work), tags='[1],"admin":true')


@pytest.mark.parametrize("name", ["status", "error", "payload", "_tenant"])
def test_names_of_the_daemon_come_from_the_payload_only(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def work({name}: str = 'default', n: int = 0): ...", scope)
    handler = handler_of(scope["work"])
    assert handler.bind({name: "x" if name != "payload" else "{}", "n": "1"}) == {"n": 1}
    assert handler.bind({"payload": f'{{"{name}": "mine"}}'}) == {name: "mine"}


def test_the_job_parameter_is_never_filled_from_data(video: Any) -> None:
    assert "job" not in video.bind(fields(source="x", user_id="1", job="evil"))
    assert '"job" is not known' in refusal(video, payload='{"job": 1, "source": "x", "user_id": 1}')

    def work(run: Job | None, **rest: Any) -> None: ...

    async def anything(run: Job, **rest: Any) -> None: ...

    assert '"run" is not known' in refusal(handler_of(anything), payload='{"run": 1}')
    with pytest.raises(ConfigError, match="SyncJob"):
        handler_of(work)


def test_keyword_arguments_take_unknown_payload_keys_but_no_hash_fields() -> None:
    def work(a: int, **rest: int) -> None: ...

    handler = handler_of(work)
    assert handler.bind(fields('{"b": "2", "c": 3}', a="1", noise="x")) == {"a": 1, "b": 2, "c": 3}
    assert 'argument "b": "x" is not a valid integer' in refusal(handler, payload='{"a": 1, "b": "x"}')


@pytest.mark.parametrize("payload", [None, "", "{}", " {} "])
def test_a_handler_without_arguments(payload: str | None) -> None:
    async def tick(job: Job) -> None: ...

    handler = handler_of(tick)
    assert handler.bind(fields(payload, anything="x")) == {}
    assert "it takes no arguments" in refusal(handler, payload='{"a": 1}')


def test_a_parameter_that_json_cannot_fill_keeps_its_default_or_is_refused() -> None:
    class Client: ...

    def good(a: int, client: Client = Client()) -> None: ...  # noqa: B008

    def bad(client: Client) -> None: ...

    handlers = Handlers()
    handler: Any = handlers.job("good")(good)
    assert handler.bind(fields(a="1", client="x")) == {"a": 1}
    assert '"client" is not known' in refusal(handler, payload='{"a": 1, "client": 2}')
    handlers.job("bad")(bad)
    with pytest.raises(ConfigError, match=r'handler "bad", .*: parameter client: .*job\.state'):
        handlers.prepare()


def test_hints_that_are_texts() -> None:
    class Local(BaseModel):
        n: int

    def work(run: only_for_checkers.SyncJob, local: Local, many: Sequence["Local"]) -> None: ...  # noqa: UP037

    handler = Handlers().job("w")(work)
    assert handler.job_parameter == "run"
    assert handler.bind({"payload": '{"local": {"n": 1}, "many": [{"n": 2}]}'}) == {
        "local": Local(n=1), "many": [Local(n=2)],
    }  # fmt: skip


def test_a_hint_only_for_type_checkers_is_a_configuration_error() -> None:
    def work(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r'parameter x: the hint "Missing" is not known at run time: import'):
        _ = handler_of(work).binder


def test_constraints_of_annotated_hints() -> None:
    def work(width: Annotated[int, Field(ge=16)]) -> None: ...

    assert refusal(handler_of(work), width="9").endswith('"width": "9" should be greater than or equal to 16')


def test_args_is_checked_and_json_ready() -> None:
    def work(job: Any, when: datetime, uid: UUID, film: Film, colour: Colour, size: Size, n: int = 3) -> None: ...

    handler = handler_of(work)
    args = handler.args(
        when=datetime(2026, 1, 2, tzinfo=UTC), uid=UUID(int=5), film=Film(title="Up"), colour=Colour.RED,
        size=Size(1, 2),
    )  # fmt: skip
    assert args.type == "video_render"
    assert args.payload == {
        "when": "2026-01-02T00:00:00Z", "uid": str(UUID(int=5)), "film": {"title": "Up", "minutes": 90},
        "colour": "red", "size": {"width": 1, "height": 2},
    }  # fmt: skip
    with pytest.raises(AttributeError):
        args.type = "x"  # type: ignore[misc]


def test_args_refuses_what_does_not_fit(video: Any) -> None:
    for arguments, words in (
        ({"source": "x"}, 'argument "user_id" is missing'),
        ({"source": "x", "user_id": "abc"}, 'argument "user_id": "abc" is not a valid integer'),
        ({"source": "x", "user_id": 1, "job": 1}, 'argument "job" is not known'),
        ({"source": "\ud800", "user_id": 1}, 'argument "source" cannot be written as JSON'),
    ):
        with pytest.raises(PayloadError) as caught:
            video.args(**arguments)
        assert words in str(caught.value)

    def anything(data: Any) -> None: ...

    for value in (float("nan"), object(), b"\xff"):
        with pytest.raises(PayloadError, match='argument "data" cannot be written as JSON'):
            handler_of(anything).args(data=value)


texts = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_what_args_writes_bind_reads(value: Any) -> None:
    def work(data: Any) -> None: ...

    handler = handler_of(work)
    text = json.dumps(handler.args(data=value).payload)
    assert handler.bind({"payload": text}) == {"data": value}


@example("{}", "\ud800")
@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_any_texts_bind_or_raise_an_argument_error(payload: str, text: str) -> None:
    def work(tags: list[int] | None, film: Film, n: int = 0) -> None: ...

    handler = handler_of(work)
    for job in ({"payload": payload, "n": text}, {"tags": text, "film": payload}):
        message = ""
        try:
            handler.bind(job)
        except ArgumentError as error:
            message = str(error)
        assert len(message) <= 900
        assert message.isprintable()


def test_every_daemon_field_is_closed_to_hash_fields() -> None:
    scope: dict[str, Any] = {}
    names = sorted(DAEMON_FIELDS)
    exec(f"def work({', '.join(f'{name}=None' for name in names)}): ...", scope)
    assert handler_of(scope["work"]).bind({name: "x" for name in names if name != "payload"}) == {}
