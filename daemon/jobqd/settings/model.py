"""Every setting, once: type, bounds, default, description. All else that names settings derives from it."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from jobqd.settings.contradictions import contradictions
from jobqd.settings.kinds import (
    Choice,
    Duration,
    FilePath,
    HandlerNames,
    Kind,
    Secret,
    Size,
    Switch,
    Text,
    Url,
    Whole,
)
from jobqd.settings.local import MetricsAddress
from jobqd.settings.urls import DEFAULT_URL, parse_url

CONTRADICTION = "contradiction"
_HOUR, _DAY = 3600.0, 86400.0
_YEAR = 365 * _DAY

Concurrency = Annotated[int, Whole(1, 10_000)]
Attempts = Annotated[int, Whole(1, 1_000_000)]
# Not beyond ten, after which lapsed leases alone dead-letter a job (jobqd.retry.MAX_LAPSES).
Crashes = Annotated[int, Whole(2, 10)]
# Tests of lost leases need leases far shorter than any sane one.
Lease = Annotated[float, Duration(0.05, _HOUR, "15s")]
RunTime = Annotated[float, Duration(0.05, _YEAR, "90m")]
BlockLimit = Annotated[float, Duration(1.0, _HOUR, "2m")]
Delay = Annotated[float, Duration(0.0, 30 * _DAY, "30s")]
Keeping = Annotated[float, Duration(0.05, 10 * _YEAR, "7d")]
Drain = Annotated[float, Duration(0.0, _DAY, "2m")]
# Redis holds no value above 512 MiB (proto-max-bulk-len).
ValueSize = Annotated[int, Size(64, 512 * 2**20)]
# A surrogate stands for a byte of the environment that is not UTF-8.
_VISIBLE = r"[^\s\x00-\x1f\x7f\ud800-\udfff]"
Name = Annotated[str, Text(_VISIBLE + "{1,200}", "1 to 200 characters without spaces")]
Prefix = Annotated[str, Text(_VISIBLE + "{0,200}", "up to 200 characters without spaces")]
Instance = Annotated[str, Text(r"[A-Za-z0-9_.-]{1,64}", "up to 64 letters, digits, dots, dashes, underscores")]
User = Annotated[str, Text(_VISIBLE + "{1,200}", "the name of a Redis user")]
Address = Annotated[str, Url()]
Password = Annotated[SecretStr, Secret()]
Certificate = Annotated[Path, FilePath("the path of a PEM file")]
Directory = Annotated[Path, FilePath("the path of a directory")]


def default_runtime_dir(environ: Mapping[str, str], uid: int) -> Path:
    """Return where lock files go unless it is set.

    systemd's $RUNTIME_DIRECTORY (the first of several, systemd.exec(5)), else jobqd in $XDG_RUNTIME_DIR, else
    /tmp/jobqd-UID. Anybody can write to /tmp: whoever creates that one does so with mode 0700, and refuses
    one that belongs to somebody else.
    """
    if runtime := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(runtime)
    if xdg := environ.get("XDG_RUNTIME_DIR"):
        return Path(xdg) / "jobqd"
    return Path(f"/tmp/jobqd-{uid}")  # noqa: S108 - see the docstring


class JobSettings(BaseModel):
    """What may differ for one type; None leaves it to the decorator, then to the global one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: Concurrency | None = Field(
        None, description="How many jobs of this type run at once in this daemon; the others wait their turn."
    )
    max_attempts: Attempts | None = Field(None, description="How often a job of this type is tried.")
    timeout: RunTime | None = Field(None, description="How long one run may take.")
    retry_delay: Delay | None = Field(None, description="The wait before the second attempt.")
    retry_max_delay: Delay | None = Field(None, description="The longest wait between two attempts.")
    job_ttl: Keeping | None = Field(None, description="How long a finished job of this type is kept.")
    drain_timeout: Drain | None = Field(None, description="How long a stop waits for a job of this type.")
    stall_timeout: RunTime | None = Field(
        None, description="A run that reports no progress for so long is ended and tried again."
    )


class Settings(BaseSettings):
    """The settings of one daemon or client. Durations are seconds, sizes are bytes; it cannot be changed.

    A user name and password inside `redis_url` move to `redis_username` and `redis_password`, unless these
    are given too, so that the URL can be shown. Raises pydantic's ValidationError; `jobqd.settings.load`
    raises ConfigError instead, which tells where the wrong value was set.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: Address = Field(
        DEFAULT_URL,
        description="Where Redis is: redis://, rediss:// (TLS), unix://, redis+sentinel://, redis+cluster:// "
        "or embedded:// (a Redis server of its own, for development).",
    )
    redis_username: User | None = Field(None, description="The Redis user (ACL), if there is one.")
    redis_password: Password | None = Field(
        None, description="The password of Redis, preferably from a systemd credential."
    )
    tls_ca: Certificate | None = Field(
        None, description="The certificate authority of Redis, if it is not a public one."
    )
    queue: Name = Field("job_queue", description="The key of the queue in Redis.")
    key_prefix: Prefix = Field("", description="What every key and channel begins with. One prefix holds one queue.")
    allow_eviction: Annotated[bool, Switch()] = Field(
        False,
        description="Start although Redis evicts any key when it is full (allkeys-*): jobs can vanish.",
    )
    instance: Instance = Field(
        "default", description="The name of this daemon on this machine; two of one name do not run together."
    )
    runtime_dir: Directory = Field(
        default_factory=lambda: default_runtime_dir({}, os.getuid()),
        description="The directory of lock files.",
    )
    handlers: Annotated[tuple[str, ...], HandlerNames()] = Field(
        ("handlers:handlers",),
        description="Where the handlers are: package.module:attribute, joined by commas.",
    )
    app_dir: Directory = Field(
        Path(),
        description="The directory that handlers are imported from; relative to where the daemon is started.",
    )
    concurrency: Concurrency = Field(32, description="How many jobs run at once in this daemon.")
    max_attempts: Attempts = Field(10, description="How often a job is tried, the first run included.")
    max_crashes: Crashes = Field(
        3, description="A job is dead-lettered when so many processes died under it, the last one running it alone."
    )
    retry_delay: Delay = Field(
        10.0, description="The wait before the second attempt; it doubles each time, half of it random."
    )
    retry_max_delay: Delay = Field(15 * 60.0, description="The longest wait between two attempts.")
    timeout: RunTime = Field(_HOUR, description="How long one run may take.")
    lease: Lease = Field(
        15.0, description="How long a job stays with a daemon that fell silent; renewed every third of it."
    )
    block_limit: BlockLimit = Field(
        120.0,
        description="A daemon whose event loop is blocked for so long hands its jobs back and ends.",
    )
    job_ttl: Keeping = Field(_DAY, description="How long a finished job and its result can be looked up.")
    dead_ttl: Keeping = Field(30 * _DAY, description="How long a dead-lettered job is kept.")
    dead_max: Annotated[int, Whole(1, 10_000_000)] = Field(
        10_000, description="How many dead-lettered jobs are kept; the oldest go first."
    )
    max_age: Keeping = Field(
        30 * _DAY, description="A job not finished so long after it was due is dead-lettered as expired."
    )
    max_payload: ValueSize = Field(
        2**20, description="The largest payload: our clients enqueue no larger one, and daemons dead-letter it."
    )
    max_result: ValueSize = Field(2**20, description="The largest result, or checkpoint, that is stored.")
    max_ready: Annotated[int, Whole(1, 10**12)] = Field(
        10_000_000, description="Our clients refuse to enqueue while so many jobs are ready."
    )
    drain_timeout: Drain = Field(
        60.0, description="How long a stop waits for running jobs before it hands them back, uncharged."
    )
    max_interruptions: Annotated[int, Whole(0, 1_000_000)] = Field(
        3, description="After so many interruptions of a job, a stop waits for it until its own timeout."
    )
    log_level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = Field(
        "info", description="The least severe line that is logged."
    )
    log_format: Annotated[str, Choice(("auto", "journald", "console", "json"))] = Field(
        "auto",
        description="auto: the journal under systemd, lines for people on a terminal, JSON lines elsewhere.",
    )
    metrics: Annotated[str, MetricsAddress()] = Field(
        "",
        description="Where figures for Prometheus and the daemon's health are served: a loopback address with a port, "
        "or unix:///path. Empty: nowhere.",
    )
    jobs: dict[str, JobSettings] = Field(default_factory=dict, description="Settings of single types.")

    @classmethod
    def settings_customise_sources(  # noqa: D102 - inherited
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` alone reads the environment and files: only it can say where a wrong value was set.
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _take_credentials_from_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            url = parse_url(str(values.get("redis_url", DEFAULT_URL)))
        except ValueError:
            return values  # the field's own validator reports it
        found = {"redis_username": url.username, "redis_password": url.password}
        return {**{name: value for name, value in found.items() if value is not None}, **values}

    @model_validator(mode="after")
    def _check_contradictions(self) -> Self:
        problems = contradictions(self)
        if problems:
            text = "; ".join(f"{problem.subject}: {problem.wrong}" for problem in problems)
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text, "problems": problems})
        return self


def setting_names() -> list[str]:
    """Return the names of all global settings, in the order of the documentation."""
    return [name for name in Settings.model_fields if name != "jobs"]


def job_setting_names() -> list[str]:
    """Return the names of all settings of a single type."""
    return list(JobSettings.model_fields)


def setting_field(name: tuple[str, ...]) -> FieldInfo:
    """Return the definition of `(setting,)` or `("jobs", TYPE, setting)`. Raises KeyError for other names."""
    return Settings.model_fields[name[0]] if len(name) == 1 else JobSettings.model_fields[name[2]]


def setting_kind(name: tuple[str, ...]) -> Kind:
    """Return what kind of value a setting takes. Raises KeyError for an unknown name."""
    field = setting_field(name)
    metadata = list(field.metadata)
    if get_origin(field.annotation) in (Union, types.UnionType):
        metadata += [item for part in get_args(field.annotation) for item in get_args(part)[1:]]
    return next(item for item in metadata if isinstance(item, Kind))
