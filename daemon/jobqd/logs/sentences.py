"""What each event says to a person: the console's lines and the journal's MESSAGE come from one table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter
from typing import Any

from jobqd.logs.record import Record
from jobqd.logs.text import cut, one_line, shown
from jobqd.units import format_duration, format_size

_BRACKETED = re.compile(r"\[([^\]]*)\]")
_DURATIONS = frozenset({"away", "delay", "duration", "interval", "lease", "timeout", "waited"})
_SIZES = frozenset({"size", "limit_bytes"})
_SUBJECT = frozenset({"job_id", "job_type", "attempt", "fence"})
_BLOCKS = ("stack",)
_FIELD_LIMIT = 2000
_ERROR_LIMIT = 400
"""Longest error in a sentence: a program may have said fifty lines, which the traceback or the job's hash holds."""


class Sentence:
    """A template: `{field}` is filled in, `[a part]` is left out when a field that it names is not there.

    `details` follow in parentheses, each only if its fields are there.
    """

    __slots__ = ("_details", "_pieces", "names")

    def __init__(self, template: str, *details: str) -> None:
        self._pieces = [
            _Piece.of(text, optional=index % 2 == 1) for index, text in enumerate(_BRACKETED.split(template)) if text
        ]
        self._details = [_Piece.of(text, optional=True) for text in details]
        self.names = frozenset(name for piece in (*self._pieces, *self._details) for name in piece.names)
        """Fields that the sentence tells, if they are there."""

    def fill(self, fields: dict[str, Any]) -> str:
        """Return the sentence for these fields."""
        text = "".join(piece.fill(fields) for piece in self._pieces)
        details = ", ".join(filter(None, (piece.fill(fields) for piece in self._details)))
        return f"{text} ({details})" if details else text


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    names: tuple[str, ...]
    optional: bool

    @classmethod
    def of(cls, text: str, *, optional: bool) -> _Piece:
        return cls(text, tuple(name for _, name, _, _ in Formatter().parse(text) if name), optional)

    def fill(self, fields: dict[str, Any]) -> str:
        if self.optional and any(fields.get(name) in (None, "") for name in self.names):
            return ""
        return self.text.format_map({name: humane(name, fields.get(name, "?")) for name in self.names})


SENTENCES = {
    "job.started": Sentence("started", "waited {waited}", "attempt {attempt}"),
    "job.completed": Sentence("completed[ in {duration}]", "waited {waited}", "attempt {attempt}"),
    "job.retrying": Sentence(
        "failed[: {error_type}][: {error}]; runs again[ in {delay}]",
        "attempt {attempt} of {max_attempts}",
        "ran {duration}",
        "waited {waited}",
    ),
    "job.dead": Sentence(
        "is dead-lettered[: {error_type}][: {error}]", "attempt {attempt}", "ran {duration}", "waited {waited}"
    ),
    "job.released": Sentence("handed back, no attempt spent[: {reason}]", "ran {duration}"),
    "job.snoozed": Sentence("snoozes[ for {delay}]", "ran {duration}"),
    "job.cancelled": Sentence("cancelled", "ran {duration}"),
    "job.lost": Sentence("lost its lease; its result is refused[: {reason}]", "ran {duration}"),
    "job.refused": Sentence("ended[ as {outcome}], refused: {reason}", "attempt {attempt}", "ran {duration}"),
    "job.recovered": Sentence("recovered: {reason}[; runs again in {delay}]", "lost leases: {crashes}"),
    "recover.doubts": Sentence("leases that run out are not taken over: {reason}"),
    "job.broke": Sentence("could not be brought to its end"),
    "job.dropped": Sentence("dropped from the queue: {reason}"),
    "job.restored": Sentence("was in no index of the queue; put back"),
    "job.expired": Sentence("is older than max_age; goes to the dead letters"),
    "job.unacknowledged": Sentence("was written but never put into the queue: no ZADD followed its HSET"),
    "job.persisted": Sentence("waited with a TTL left from an earlier run; removed"),
    "job.ttl": Sentence("had ended without a TTL; set"),
    "job.ignores_cancel": Sentence("does not end although it was told to[: {ending}]; told again"),
    "job.keeps_thread": Sentence(
        "does not end although it was told to[: {ending}]; its thread keeps a worker until it does"
    ),
    "job.option_ignored": Sentence(
        "has a {field} that cannot be read, {value}: ignored, as it is in later jobs of this type, without another word"
    ),
    "job.printed": Sentence("printed: {line}"),
    "job.not_recorded": Sentence("ended[ as {outcome}], but Redis did not take the outcome"),
    "job.lines_suppressed": Sentence("{count} more lines about single jobs were left out"),
    "daemon.starting": Sentence("jobqd[ {version}] starts"),
    "daemon.ready": Sentence("ready[: {concurrency} workers][ on {queue}]", "started in {duration}"),
    "daemon.programs_left": Sentence(
        "programs of the daemon before this one have not ended within {duration}: its jobs are run again all the same"
    ),
    "daemon.took_back": Sentence("jobs taken back from the daemon that died before this one: {count}"),
    "daemon.crashed": Sentence("a part of the daemon[, {part},] crashed: it ends, and its jobs will be taken back"),
    "daemon.start_failed": Sentence("cannot start: {problem}"),
    "daemon.presence_left": Sentence("could not sign off at Redis[: {error}]"),
    "daemon.reloading": Sentence("reloading"),
    "daemon.draining": Sentence(
        "stopping: no new jobs[, {running} still running]", "waits up to {timeout}; a second signal does not wait"
    ),
    "daemon.hurrying": Sentence("a second signal: running jobs are ended now and handed back"),
    "daemon.drained": Sentence("drain_timeout is over: what still runs is ended", "{running} running"),
    "daemon.quiet": Sentence("quiet: claims no more jobs[, {running} still running]"),
    "daemon.resumed": Sentence("claims jobs again"),
    "daemon.reloaded": Sentence("reloaded: {changes}"),
    "daemon.restart_needed": Sentence("changed, but in force only after a restart: {changes}"),
    "daemon.reload_refused": Sentence("not reloaded, nothing has changed: {problem}"),
    "daemon.outdated": Sentence(
        "jobqd on disk is not the one that runs: jobs that need a process of their own wait for a restart"
    ),
    "daemon.stuck": Sentence("does not vouch for itself any more, so systemd will end it: {reason}"),
    "daemon.vouches": Sentence("vouches for itself again"),
    "reload.deaf": Sentence("`jobqd reload` cannot reach this daemon, only SIGHUP can: {problem}"),
    "lifespan.cut_short": Sentence("asked to stop while the lifespan of the handlers was being entered"),
    "lifespan.failed": Sentence("the lifespan of the handlers could not be left: {problem}"),
    "daemon.stopping": Sentence("stopping[: {reason}]"),
    "daemon.left_behind": Sentence("did not wait for what the application left running: {names}"),
    "daemon.stopped": Sentence("stopped", "after {duration}"),
    "schedule.milliseconds": Sentence(
        "{count} delayed jobs were due at a time in milliseconds; read as such (write seconds; the first was {first})"
    ),
    "schedule.never": Sentence(
        "{count} delayed jobs were due at no time that will come; due in the year 5138 now (the first was {first})"
    ),
    "index.foreign": Sentence(
        "{key} is not a sorted set: RENAME or DEL what stands there; jobs that belong there are tried again each minute"
    ),
    "type.unhandled": Sentence("jobs of type {type} are held: no handler here is theirs[; is {meant} meant?]"),
    "redis.away": Sentence("{problem}[: {error}]; tried again until it does"),
    "redis.back": Sentence("Redis is back[ after {away}]", "away {duration}"),
    "redis.memory_tight": Sentence(
        "Redis uses {size} of {limit_bytes} (maxmemory): completed jobs are kept for {interval} only"
    ),
    "redis.memory_relaxed": Sentence("Redis has memory again[, {size} of {limit_bytes} used]: job_ttl counts again"),
    "redis.warning": Sentence("Redis: {problem}"),
    "redis.evicts": Sentence("Redis has begun to evict jobs: {problem}"),
    "redis.evicts_no_more": Sentence("Redis evicts no jobs any more: {problem}"),
    "config.warning": Sentence("{problem}"),
    "wakeup.polling": Sentence("Redis refuses CLIENT TRACKING, so jobs are looked for every {interval}", "{error}"),
    "sandbox.hint": Sentence(
        "met {problem}[ at {path}]; if the hardening of {unit} is the reason: {remedy}. This is said once for each type"
    ),
    "hook.failed": Sentence("the on_dead hook {hook} failed"),
    "hook.skipped": Sentence("the on_dead hooks are not called[ for {count} dead letters]: {reason}"),
    "loop.blocked": Sentence("event loop blocked[ for {duration}]: a handler calls something that waits"),
    "loop.exit_refused": Sentence("a task of a handler {problem}; the daemon goes on"),
    "loop.gave_up": Sentence("gives up: {reason}; jobs handed over: {count}", "{error}"),
    "loop.unblocked": Sentence("event loop runs again after {duration}"),
    "metrics.listening": Sentence("metrics and health are served at {address}"),
    "metrics.failed": Sentence(
        "metrics and health cannot be served at {address}: {error}; jobs run all the same, and it is tried again every "
        "{interval}"
    ),
    "metrics.broke": Sentence("a request for metrics could not be answered"),
    "log.dropped": Sentence("{count} log lines were dropped: the reader of the log was too slow"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """A record for a person, every part one line without control characters, except the texts of `blocks`."""

    job_type: str
    job_id: str
    text: str
    rest: list[tuple[str, str]]
    """Fields that the text does not tell."""
    blocks: list[str]
    """Texts of several lines: a stack, a traceback."""

    def sentence(self) -> str:
        """Return the description as one line."""
        subject = " ".join(filter(None, (self.job_type, self.job_id)))
        rest = "".join(f" {name}={value}" for name, value in self.rest)
        return f"{subject} {self.text}{rest}" if subject else f"{self.text}{rest}"


def describe(record: Record) -> Description:
    """Return what a record says to a person."""
    fields = record.fields
    sentence = SENTENCES.get(record.event)
    text = one_line(record.event) if sentence is None else sentence.fill(fields)
    told = (sentence.names if sentence else frozenset()) | (_SUBJECT if "job_id" in fields else frozenset())
    blocks = [shown(fields[name]) for name in _BLOCKS if fields.get(name)]
    if record.exception:
        blocks.append(record.exception)
    rest = [
        (one_line(shown(name, _FIELD_LIMIT)), _quoted(humane(name, value)))
        for name, value in fields.items()
        if name not in told and name not in _BLOCKS and value is not None
    ]
    job_type = _subject(fields, "job_type") if "job_id" in fields else ""
    return Description(job_type, _subject(fields, "job_id"), text, rest, blocks)


def humane(name: str, value: Any) -> str:
    """Return a value as a person reads it; the field's name tells seconds and bytes from other numbers."""
    if name == "error" and type(value) is str:
        return one_line(cut(" | ".join(filter(None, map(str.strip, value.splitlines()))), _ERROR_LIMIT))
    if type(value) in (int, float) and value >= 0:
        if name in _DURATIONS:
            return format_duration(value)
        if name in _SIZES:
            return format_size(int(value))
    return one_line(shown(value, _FIELD_LIMIT))


def _subject(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else one_line(shown(value, _FIELD_LIMIT))


def _quoted(text: str) -> str:
    return f'"{text}"' if not text or " " in text or "=" in text else text
