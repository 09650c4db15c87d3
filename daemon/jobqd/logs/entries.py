"""Records as entries of the journal."""

from __future__ import annotations

import logging
from typing import Any

from jobqd.journal import encode, field_name
from jobqd.logs.record import Record
from jobqd.logs.sentences import describe
from jobqd.logs.text import block, cut, shown

_LIMIT = 4 * 2**20
_NAMES = {"job_id": "JOB_ID", "job_type": "JOB_TYPE", "attempt": "JOB_ATTEMPT", "fence": "JOB_FENCE"}
_RESERVED = frozenset(_NAMES.values()) | {
    *("MESSAGE", "MESSAGE_ID", "PRIORITY", "EVENT", "EXCEPTION", "ERRNO", "TID", "DOCUMENTATION"),
    *("UNIT", "USER_UNIT", "INVOCATION_ID", "USER_INVOCATION_ID"),
}
_RESERVED_PREFIXES = ("CODE_", "SYSLOG_", "OBJECT_", "COREDUMP_")


class JournalFormat:
    """Renders a record as MESSAGE, PRIORITY, EVENT, JOB_*, CODE_*, EXCEPTION, and its other fields.

    Those fields keep their names in upper case; one that would take a name with a meaning of its own becomes
    FIELD_NAME, so that a job's field `message` or `priority` cannot pass for ours.
    """

    def __init__(self, identifier: str = "jobqd") -> None:
        self._identifier = identifier

    def render(self, record: Record) -> bytes:
        """Return the entry in wire form."""
        fields = [
            ("MESSAGE", cut(block(_message(record)), _LIMIT)),
            ("PRIORITY", _priority(record.level)),
            ("SYSLOG_IDENTIFIER", self._identifier),
        ]
        if _is_name(record.event):
            fields.append(("EVENT", record.event))
        if record.caller is not None:
            fields += (
                ("CODE_FILE", record.caller.file),
                ("CODE_LINE", str(record.caller.line)),
                ("CODE_FUNC", record.caller.function),
            )
        if record.exception:
            fields.append(("EXCEPTION", cut(block(record.exception), _LIMIT)))
        fields += [
            (_name(name), cut(block(shown(value, _LIMIT)), _LIMIT))
            for name, value in record.fields.items()
            if value is not None
        ]
        return encode(fields)


def _message(record: Record) -> str:
    description = describe(record)
    if not record.exception:
        return description.sentence()
    last = record.exception.rsplit("\n", 1)[-1].strip()
    sentence = description.sentence()
    return sentence if last in sentence else f"{sentence}: {last}"


def _priority(level: int) -> str:
    for threshold, priority in ((logging.CRITICAL, "2"), (logging.ERROR, "3"), (logging.WARNING, "4")):
        if level >= threshold:
            return priority
    return "6" if level >= logging.INFO else "7"


def _name(name: Any) -> str:
    known = _NAMES.get(name)
    if known is not None:
        return known
    upper = field_name(name if isinstance(name, str) else shown(name))
    taken = upper in _RESERVED or upper.startswith(_RESERVED_PREFIXES)
    return field_name(f"FIELD_{upper}") if taken else upper


def _is_name(event: str) -> bool:
    return "." in event and len(event) <= 64 and event.replace(".", "_").isidentifier() and event.isascii()
