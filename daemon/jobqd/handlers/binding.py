"""From the texts of a job's hash to the arguments of its handler, and from Python values to a payload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaSerializer, from_json
from typing_extensions import TypedDict

from jobqd.errors import ArgumentError, ConfigError, PayloadError
from jobqd.handlers.explain import cut, join, problems, shown
from jobqd.handlers.signature import Argument, Signature
from jobqd.job import DAEMON_FIELDS

_EMPTY_PAYLOADS = frozenset(("", "{}"))


class Binder:
    """The validators of one handler, built once.

    The payload is parsed and validated in one call, from its JSON text: tuples, sets, dates or UUIDs then
    take what JSON can say, strict hints too. Hash fields are texts and are validated as such; a text that
    does not fit is read as JSON, so `[1,2]` fits a list.
    """

    __slots__ = (
        "_extra",
        "_hints",
        "_job_parameter",
        "_names",
        "_payload",
        "_required",
        "_texts",
        "_type",
        "_writer",
    )

    def __init__(self, job_type: str, signature: Signature) -> None:
        self._type = job_type
        self._job_parameter = signature.job_parameter
        self._hints: dict[str, Any] = {}
        for argument in signature.arguments:
            if _fillable(argument, hint := signature.hint(argument)):
                self._hints[argument.name] = hint
        self._names = tuple(name for name in self._hints if name not in DAEMON_FIELDS and not name.startswith("_"))
        self._required = frozenset(argument.name for argument in signature.arguments if argument.required)
        self._payload = _arguments_adapter(self._hints, extra="forbid" if signature.extra is None else "allow")
        # By default NaN would be written as null, without a word.
        self._writer = SchemaSerializer(self._payload.core_schema, {"ser_json_inf_nan": "constants"})
        texts = {name: self._hints[name] for name in self._names}
        self._texts: Any = _arguments_adapter(texts, extra="ignore").validator
        self._extra: Any = None
        if signature.extra is not None:
            self._extra = _extra_adapter(signature.extra, signature.hint(signature.extra))

    def bind(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments for a job's hash, defaults left out.

        Raises ArgumentError naming the argument, its value and what is wrong.
        """
        payload = fields.get("payload", "")
        bound = {} if payload in _EMPTY_PAYLOADS else self._read_payload(payload)
        if self._names:
            texts = {name: fields[name] for name in self._names if name in fields and name not in bound}
            if texts:
                bound.update(self._read_texts(texts))
        if not self._required <= bound.keys():
            raise ArgumentError(join(self._type, self._missing(bound)))
        return bound

    def payload(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return Python values as a JSON-ready payload; raises PayloadError naming the argument."""
        try:
            bound = self._payload.validate_python(dict(arguments))
            self._check_extra(bound)
        except ValidationError as error:
            raise PayloadError(join(self._type, self._complaints(error))) from None
        if not self._required <= bound.keys():
            raise PayloadError(join(self._type, self._missing(bound)))
        try:
            return self._dumped(bound)
        except (TypeError, ValueError, RecursionError):
            raise PayloadError(join(self._type, self._undumpable(bound))) from None

    def _read_payload(self, text: str) -> dict[str, Any]:
        try:
            bound = self._payload.validator.validate_json(text)
            if "NaN" in text or "Infinity" in text:
                # The validator lets them pass where the hint is Any; JSON has neither.
                from_json(text, allow_inf_nan=False)
            if self._extra is not None:
                self._check_extra(bound)
        except ValidationError as error:
            raise ArgumentError(join(self._type, self._payload_complaints(error, text))) from None
        except (ValueError, RecursionError) as error:
            complaint = f"the payload is not JSON: {cut(str(error), 200)}"
            raise ArgumentError(join(self._type, [complaint])) from None
        return cast("dict[str, Any]", bound)

    def _check_extra(self, bound: dict[str, Any]) -> None:
        """Convert what `**kwargs` takes, in place; the job parameter is never filled from data."""
        if self._extra is None:
            return
        if self._job_parameter in bound:
            raise ValidationError.from_exception_data(
                self._type,
                [{"type": "extra_forbidden", "loc": (str(self._job_parameter),), "input": None}],
            )
        extras = {name: value for name, value in bound.items() if name not in self._hints}
        bound.update(self._extra.validate_python(extras))

    def _read_texts(self, texts: dict[str, str]) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", self._texts.validate_strings(texts))
        except ValidationError:
            pass  # left first, so that an ArgumentError does not drag it along as its context
        return self._read_texts_one_by_one(texts)

    def _read_texts_one_by_one(self, texts: dict[str, str]) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        complaints: list[str] = []
        for name, text in texts.items():
            try:
                bound.update(self._texts.validate_strings({name: text}))
            except ValidationError as error:
                try:
                    bound.update(self._read_as_json(name, text, error))
                except ValidationError as better:
                    complaints += problems(better)
        if complaints:
            raise ArgumentError(join(self._type, complaints))
        return bound

    def _read_as_json(self, name: str, text: str, as_text: ValidationError) -> dict[str, Any]:
        """Read a hash field as JSON; a hash cannot hold null, so an empty text may also mean that."""
        json_text = text.strip() or "null"
        try:
            # Parsed alone first: inside the object below, `1,"b":2` would be two arguments.
            from_json(json_text, allow_inf_nan=False)
        except (ValueError, TypeError, RecursionError):  # TypeError: pydantic's word for a lone surrogate
            raise as_text from None
        try:
            return cast("dict[str, Any]", self._texts.validate_json(f"{{{json.dumps(name)}:{json_text}}}"))
        except ValidationError as as_json:
            raise (as_json if json_text[0] in "[{" else as_text) from None

    def _dumped(self, bound: dict[str, Any]) -> dict[str, Any]:
        dumped: dict[str, Any] = self._writer.to_python(bound, mode="json", warnings=False)
        json.dumps(dumped, allow_nan=False, ensure_ascii=False).encode()
        return dumped

    def _undumpable(self, bound: dict[str, Any]) -> list[str]:
        complaints = []
        for name, value in bound.items():
            try:
                self._dumped({name: value})
            except (TypeError, ValueError, RecursionError) as error:
                complaints.append(f"argument {shown(name)} cannot be written as JSON: {cut(str(error), 200)}")
        return complaints

    def _payload_complaints(self, error: ValidationError, text: str) -> list[str]:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if not first["loc"]:
            if first["type"] == "json_invalid":
                reason = first["msg"].removeprefix("Invalid JSON: ")
                return [f"the payload is not JSON: {reason}: {shown(text)}"]
            if first["type"] == "string_unicode":
                return [f"the payload is not valid UTF-8: {shown(text)}"]
            return [f'the payload {shown(text)} is not a JSON object: write one, as in {{"user_id": 7}}']
        return self._complaints(error)

    def _complaints(self, error: ValidationError) -> list[str]:
        found = problems(error)
        entries = error.errors(include_url=False, include_input=False, include_context=False)
        if any(entry["type"] == "extra_forbidden" and len(entry["loc"]) == 1 for entry in entries):
            found.append(self._takes())
        return found

    def _missing(self, bound: Mapping[str, Any]) -> list[str]:
        missing = self._required - bound.keys()
        return [f"argument {shown(name)} is missing" for name in self._hints if name in missing]

    def _takes(self) -> str:
        return f"it takes {', '.join(self._hints)}" if self._hints else "it takes no arguments"


def _arguments_adapter(hints: Mapping[str, Any], *, extra: Any) -> TypeAdapter[dict[str, Any]]:
    typed_dict: Any = TypedDict  # made at run time, so there is nothing for a type checker to see
    arguments = typed_dict("Arguments", dict(hints), total=False)
    arguments.__pydantic_config__ = ConfigDict(extra=extra, allow_inf_nan=False, populate_by_name=True)
    return TypeAdapter(arguments)


def _extra_adapter(extra: Argument, hint: Any) -> TypeAdapter[dict[str, Any]]:
    _check_hint(extra, hint)
    return TypeAdapter(dict[str, hint])


def _fillable(argument: Argument, hint: Any) -> bool:
    """Whether JSON can fill it; a required parameter that nothing can fill raises ConfigError.

    One with a default and such a hint (a client, for tests to replace) always keeps its default.
    """
    try:
        _check_hint(argument, hint)
    except ConfigError:
        if argument.required:
            raise
        return False
    return True


def _check_hint(argument: Argument, hint: Any) -> None:
    try:
        TypeAdapter(hint)
    except (PydanticUserError, TypeError, NameError) as error:
        reason = cut((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise ConfigError(
            f"parameter {argument.name}: its hint {shown(hint)} is not one that JSON can fill: use a plain "
            f"type, a dataclass or a pydantic model, or take the object from job.state ({reason})"
        ) from None
