"""A log that keeps its records for the test to look at."""

from __future__ import annotations

from typing import Any


class RecordingLog:
    """Takes what the daemon's parts log: (level, event, fields)."""

    def __init__(self, records: list[tuple[str, str, dict[str, Any]]] | None = None, **bound: Any) -> None:
        self.records = [] if records is None else records
        self._bound = bound

    def bind(self, **fields: Any) -> RecordingLog:
        return RecordingLog(self.records, **self._bound, **fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._take("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._take("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._take("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._take("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        self._take("error", event, {**fields, "exc_info": True})

    def critical(self, event: str, **fields: Any) -> None:
        self._take("critical", event, fields)

    def is_enabled_for(self, level: int) -> bool:
        return True

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of every record of an event."""
        return [fields for _, name, fields in self.records if name == event]

    @property
    def events(self) -> list[str]:
        return [name for _, name, _ in self.records]

    def _take(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.records.append((level, event, {**self._bound, **fields}))
