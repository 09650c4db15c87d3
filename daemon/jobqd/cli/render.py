"""Jobs and queues as people want to see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobqd.cli.text import Paper, ago, block, count, due, line, plural, short, shown_id
from jobqd.job import integer
from jobqd.store.counting import DaemonInfo, Stats
from jobqd.store.facts import JobInfo, Progress

_LABEL = 12
_REASONS = 20
"""So many reasons for holding jobs are listed."""
Served = frozenset[str] | None
"""The types of job that running daemons handle; None: not known."""


def served_by(daemons: Sequence[DaemonInfo]) -> Served:
    """Return the types that these daemons handle; None if one of them does not say."""
    if not all(daemon.types for daemon in daemons):
        return None
    return frozenset(name for daemon in daemons for name in daemon.types)


def job_table(paper: Paper, jobs: Sequence[JobInfo], served: Served = None) -> str:
    """Return a list of jobs, one a line; `served` are the types that running daemons handle."""
    rows = [
        (shown_id(job.id), line(status_word(job)), line(job.type) or "-", _priority(job), summary(job, served=served))
        for job in jobs
    ]
    return paper.table(("ID", "STATUS", "TYPE", "PRI", "WHEN"), rows, right=frozenset({3}))


def status_word(job: JobInfo) -> str:
    """Return the status, or "held" for a queued job that may not run now."""
    return "held" if job.held and job.status == "queued" else job.status


def _priority(job: JobInfo) -> str:
    return "-" if job.priority is None else str(job.priority)


def summary(job: JobInfo, *, reason: bool = True, served: Served = None) -> str:
    """Return what matters about a job in its status, on one line; with the error it met, unless told not to."""
    now = job.seen_at
    error = line(job.fields.get("error", "")) if reason else ""
    match job.status:
        case "processing":
            parts = [f"for {short(now - job.started_at)}" if job.started_at else "", progress_words(job.progress)]
        case "scheduled" | "retrying":
            parts = [due(job.due_at - now) if job.due_at else "", _attempts(job), error]
        case "completed" | "failed" | "cancelled":
            parts = [ago(now - job.finished_at) if job.finished_at else "", _took(job), _end(job, error)]
        case _:
            since = f"since {short(now - job.created_at)}" if job.created_at else ""
            parts = [since, held_words(job, served), _attempts(job)]
    return ", ".join(part for part in parts if part)


def _took(job: JobInfo) -> str:
    if job.status != "completed" or job.started_at is None or job.finished_at is None:
        return ""
    return f"took {short(job.finished_at - job.started_at)}"


def _end(job: JobInfo, error: str) -> str:
    return error if job.status == "failed" else ""


def _attempts(job: JobInfo) -> str:
    return f"attempt {job.attempts} failed" if job.attempts else ""


def held_words(job: JobInfo, served: Served = None) -> str:
    """Return why a job may not run now."""
    if not job.held:
        return ""
    if job.held.startswith("type:"):
        if served is not None and job.held[5:] not in served:
            return f"no running daemon handles {line(job.held[5:])}"
        return f"waits for a daemon with room for {line(job.held[5:])}"
    if job.held == "suspect":
        return "waits for room to run in a process of its own, because it crashed before"
    return f"held: {line(job.held)}"


def progress_words(progress: Progress) -> str:
    """Return percent, step and the time left: "47% encoding, 2m left"."""
    percent = "" if progress.percent is None else f"{progress.percent:.0f}%"
    left = "" if progress.eta_seconds is None else f"{short(progress.eta_seconds)} left"
    words = " ".join(part for part in (percent, line(progress.step or "")) if part)
    return ", ".join(part for part in (words, left) if part)


def job_page(paper: Paper, job: JobInfo, served: Served = None) -> str:
    """Return everything about one job; `served` are the types that running daemons handle."""
    lines = [_labelled(paper, name, text) for name, text in _facts(paper, job, served) if text]
    for name, value in (("payload", job.payload), ("result", job.result), ("checkpoint", job.checkpoint)):
        if name in job.fields:
            lines.append(_labelled(paper, name, _value(value)))
    if "error" in job.fields:
        error = f"{job.fields.get('error_type', '')}: {job.fields['error']}".removeprefix(": ")
        lines.append(_labelled(paper, "error", paper.style(block(error), "red")))
    if job.fields.get("traceback"):
        lines.append(_labelled(paper, "traceback", block(job.fields["traceback"].rstrip())))
    lines += [_labelled(paper, "earlier", text) for text in _earlier(job)]
    return "\n".join(lines)


def _labelled(paper: Paper, label: str, text: str) -> str:
    indent = " " * _LABEL
    head, *rest = text.split("\n")
    return "\n".join([paper.style(f"{label:<{_LABEL}}", bold=True) + head, *(indent + more for more in rest)])


def _facts(paper: Paper, job: JobInfo, served: Served) -> Iterator[tuple[str, str]]:
    now, fields = job.seen_at, job.fields
    yield "id", shown_id(job.id)
    yield "type", line(job.type) or "none: no handler can be found for it"
    described = summary(job, reason=False, served=served)
    yield "status", paper.status(status_word(job)) + (f"  {described}" if described else "")
    if not job.ended and not job.place:
        yield "", "in no index: the enqueue was never finished, so no daemon will run it: see jobq repair"
    if job.ahead is not None:
        yield "ahead", plural(job.ahead, "job") if job.ahead else "none, it is next"
    yield "priority", _priority(job)
    limit = f" of {job.max_attempts}" if job.max_attempts else ""
    yield "attempts", f"{job.attempts}{limit}{_mishaps(job)}"
    yield "timeout", line(fields.get("timeout", ""))
    for name, moment in (
        ("created", job.created_at), ("due", job.due_at), ("started", job.started_at), ("finished", job.finished_at),
    ):  # fmt: skip
        if moment is not None:
            yield name, f"{_moment(moment)}  {due(moment - now) if moment > now else ago(now - moment)}"
    if job.ttl is not None:
        yield "forgotten", f"in {short(job.ttl)}"
    if job.status == "processing":
        yield "worker", line(fields.get("worker", ""))
    for name, text in job.own_fields.items():
        yield line(name), line(text)


def _mishaps(job: JobInfo) -> str:
    crashes, interruptions = integer(job.fields.get("crashes")), integer(job.fields.get("interruptions"))
    told = ((crashes, "lost lease"), (interruptions, "interruption"))
    words = ", ".join(plural(number, noun) for number, noun in told if number)
    return f" ({words}, uncharged)" if words else ""


def _moment(unix: float) -> str:
    from datetime import datetime  # noqa: PLC0415 - only this page needs it

    try:
        return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, ValueError, OSError):
        return str(unix)


def _value(value: Any) -> str:
    return block(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _earlier(job: JobInfo) -> Iterator[str]:
    for entry in job.history:
        at = entry.get("at")
        when = ago(job.seen_at - at) if isinstance(at, int | float) else ""
        what = f"attempt {entry.get('attempt', '?')}: {entry.get('error_type', '')}: {entry.get('error', '')}"
        yield line(f"{when}, {what}")


def stats_page(paper: Paper, stats: Stats, queue: str) -> str:
    """Return the queue at one moment."""
    parts = [_counts(paper, stats, queue)]
    told = [f"{line(name)} {count(number)}" for name, number in sorted(stats.counters.items())]
    if told:
        parts.append(paper.style("counted", bold=True) + "    " + " · ".join(told))
    parts += [f"{line(key)} is not a key of a queue: it holds something else" for key in stats.foreign]
    parts.append(_daemon_table(paper, stats))
    return "\n\n".join(parts)


def _counts(paper: Paper, stats: Stats, queue: str) -> str:
    rows = [("ready", stats.ready, "" if stats.oldest is None else f"oldest waits {short(stats.oldest)}")]
    if len(stats.levels) > 1:
        rows += [
            (f"  priority {level.priority}", level.jobs, "" if level.waiting is None else short(level.waiting))
            for level in stats.levels
        ]
    overdue = f"{count(stats.overdue)} leases ran out" if stats.overdue else ""
    rows.append(("processing", stats.active, overdue))
    next_due = "" if stats.next_due is None else due(stats.next_due - stats.now)
    rows.append(("scheduled", stats.scheduled, f"next {next_due}" if next_due else ""))
    rows += _held(stats.held)
    rows.append(("dead", stats.dead, "see jobq dead list" if stats.dead else ""))
    cells = [(name, count(jobs), told) for name, jobs, told in rows]
    return paper.table((line(queue), "JOBS", ""), cells, right=frozenset({1}))


def _held(held: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return a row for each reason, the most frequent ones if a broken producer made up thousands of types."""
    if len(held) <= _REASONS:
        return [("held", jobs, line(reason)) for reason, jobs in held.items()]
    most = sorted(held.items(), key=lambda each: -each[1])
    rest = most[_REASONS:]
    rows = [("held", jobs, line(reason)) for reason, jobs in most[:_REASONS]]
    return [*rows, ("held", sum(jobs for _, jobs in rest), f"+{count(len(rest))} more; --json names all")]


def _daemon_table(paper: Paper, stats: Stats) -> str:
    if not stats.daemons:
        return paper.style("no daemon is running: jobs wait until one starts", "yellow")
    rows = [_daemon_row(daemon, stats.now) for daemon in stats.daemons]
    return paper.table(("DAEMON", "HOST", "PID", "STATUS", "RUNS", "UP", "TYPES"), rows, right=frozenset({2}))


def _daemon_row(daemon: DaemonInfo, now: float) -> tuple[str, ...]:
    up = short(now - daemon.started_at) if daemon.started_at else "-"
    return (
        line(daemon.instance or daemon.worker), line(daemon.host or "-"), str(daemon.pid or "-"), line(daemon.status),
        f"{daemon.running}/{daemon.concurrency}", up, line(", ".join(daemon.types)),
    )  # fmt: skip
