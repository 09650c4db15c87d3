"""Settings that are right one by one and wrong together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobqd.settings.local import INSTANCE, local_address
from jobqd.settings.problems import Problem
from jobqd.units import format_duration

if TYPE_CHECKING:
    from jobqd.settings.model import Settings

_HASH_TAG = re.compile(r"[^{}]*\{[^{}]+\}")


def contradictions(settings: Settings) -> list[Problem]:
    """Return what cannot be meant, as problems whose subject is the dotted name of a setting."""
    return [*_retry_delays(settings), *_redis(settings), *_queue(settings), *_metrics(settings)]


def oddities(settings: Settings) -> list[str]:
    """Return what can be meant but most likely is not, as warnings."""
    warnings = []
    if settings.redis_username is not None and settings.redis_password is None:
        warnings.append(
            "there is a Redis user and no password: in redis_url a password alone is written redis://:PASSWORD@HOST, "
            "with a colon before it"
        )
    for job_type, job in settings.jobs.items():
        if job.concurrency is not None and job.concurrency > settings.concurrency:
            warnings.append(
                f"[jobs.{job_type}] concurrency = {job.concurrency} has no effect: "
                f"concurrency = {settings.concurrency} limits all types together"
            )
        timeout = settings.timeout if job.timeout is None else job.timeout
        if job.stall_timeout is not None and job.stall_timeout >= timeout and job.timeout is not None:
            warnings.append(
                f"[jobs.{job_type}] stall_timeout = {format_duration(job.stall_timeout)} has no effect: "
                f"timeout = {format_duration(timeout)} ends the run first"
            )
    return warnings


def _retry_delays(settings: Settings) -> list[Problem]:
    pairs = [("", settings.retry_delay, settings.retry_max_delay)]
    for job_type, job in settings.jobs.items():
        # With only one of them set here, the other may come from the handler's decorator.
        if job.retry_delay is not None and job.retry_max_delay is not None:
            pairs.append((f"jobs.{job_type}.", job.retry_delay, job.retry_max_delay))
    return [
        Problem(
            f"{where}retry_delay",
            f"it is longer than the longest wait allowed, retry_max_delay = {format_duration(longest)}",
            "lower retry_delay or raise retry_max_delay",
        )
        for where, delay, longest in pairs
        if delay > longest
    ]


def _redis(settings: Settings) -> list[Problem]:
    problems = []
    scheme = settings.redis_url.partition(":")[0]
    if settings.tls_ca is not None and scheme in ("redis", "unix", "embedded"):
        problems.append(
            Problem(
                "tls_ca",
                f"redis_url begins with {scheme}://, a connection without TLS",
                "write redis_url with rediss://, or remove tls_ca",
            )
        )
    if scheme == "redis+cluster" and not _HASH_TAG.match(settings.key_prefix):
        problems.append(
            Problem(
                "key_prefix",
                "on Redis Cluster it must hold a name in braces, which keeps all keys of a queue in one slot",
                'set key_prefix = "{jobs}:", with a name of your choice in the braces',
            )
        )
    return problems


def _metrics(settings: Settings) -> list[Problem]:
    try:
        if settings.metrics:
            local_address(settings.metrics, settings.instance)
    except ValueError as error:
        return [Problem("metrics", f"with {settings.instance} for {INSTANCE}, {error}", "write a shorter path")]
    return []


def _queue(settings: Settings) -> list[Problem]:
    if settings.queue.partition(":")[0] != "job":
        return []
    return [
        Problem(
            "queue",
            "keys that begin with job: hold the jobs themselves, so this queue and a job could share a key",
            'choose another name, such as "jobs"',
        )
    ]
