"""Answers as JSON, for programs. Times are Unix seconds, durations seconds; null: not known."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from jobqd.job import integer
from jobqd.store.counting import Stats
from jobqd.store.facts import JobInfo, Progress


def dumps(document: Any, *, lines: bool = False) -> str:
    """Return JSON that any terminal and log takes: ASCII, on one line if asked."""
    return json.dumps(document, indent=None if lines else 2, allow_nan=False, default=str)


def job_document(job: JobInfo) -> dict[str, Any]:
    """Return everything about a job."""
    fields = job.fields
    progress = job.progress
    return {
        "id": job.id,
        "type": job.type,
        "status": job.status,
        "place": job.place or None,
        "held": job.held or None,
        "priority": job.priority,
        "ahead": job.ahead,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "crashes": integer(fields.get("crashes")),
        "interruptions": integer(fields.get("interruptions")),
        "created_at": job.created_at,
        "due_at": job.due_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "ttl": job.ttl,
        "timeout": fields.get("timeout"),
        "progress": progress.percent,
        "step": progress.step,
        "eta_seconds": progress.eta_seconds,
        "payload": _finite(job.payload),
        "fields": job.own_fields,
        "result": _finite(job.result),
        "error": fields.get("error"),
        "error_type": fields.get("error_type"),
        "traceback": fields.get("traceback"),
        "history": _finite(job.history),
        "checkpoint": _finite(job.checkpoint),
        "worker": fields.get("worker"),
        "fence": integer(fields.get("fence")) or None,
    }


def update_document(job_id: str, progress: Progress) -> dict[str, Any]:
    """Return one line of a watch."""
    return {
        "id": job_id,
        "status": progress.status,
        "progress": progress.percent,
        "step": progress.step,
        "eta_seconds": progress.eta_seconds,
    }


def stats_document(stats: Stats) -> dict[str, Any]:
    """Return the queue at one moment."""
    return asdict(stats)


def _finite(value: Any) -> Any:
    """Python reads NaN and Infinity where JSON has none: they become texts."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return json.loads(json.dumps(value), parse_constant=str)
    return value
