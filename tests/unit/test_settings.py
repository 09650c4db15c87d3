from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobqd.errors import ConfigError
from jobqd.settings import Loaded, Settings, default_runtime_dir, load, shown
from jobqd.settings.layers import Given
from jobqd.settings.loading import _absolute, _validated
from jobqd.settings.model import job_setting_names, setting_names


@pytest.fixture
def read(tmp_path):
    """Load settings in an empty directory; `toml` is the text of jobqd.toml there."""

    def read(argv=None, *, toml=None, config=None, **environ) -> Loaded:
        if toml is not None:
            (tmp_path / "jobqd.toml").write_text(toml)
        return load(argv, environ=environ, config=config, cwd=tmp_path, system_file=tmp_path / "etc.toml")

    return read


def refusal(read, *arguments, **keywords) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*arguments, **keywords)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- where from


def test_without_anything_all_is_default(read):
    loaded = read()
    assert loaded.settings.lease == 15.0
    assert loaded.settings.max_payload == 2**20
    assert loaded.settings.handlers == ("handlers:handlers",)
    assert set(loaded.sources) == set(setting_names())
    assert set(loaded.sources.values()) == {"default"}
    assert (loaded.warnings, loaded.path) == ([], None)


def test_each_layer_goes_before_the_next(read, tmp_path):
    toml = "".join(
        f"{name} = {number}\n"
        for number, name in enumerate(("max_ready", "dead_max", "max_attempts", "concurrency"), 1)
    )
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in ("dead_max", "max_attempts", "concurrency"):
        (credentials / name).write_text("20\n")
    loaded = read(
        {"concurrency": "40"}, toml=toml, CREDENTIALS_DIRECTORY=str(credentials),
        JOBQD_MAX_ATTEMPTS="30", JOBQD_CONCURRENCY="30",
    )  # fmt: skip
    settings = loaded.settings
    assert (settings.max_ready, settings.dead_max, settings.max_attempts, settings.concurrency) == (1, 20, 30, 40)
    assert loaded.sources["max_ready"] == f"file {tmp_path / 'jobqd.toml'}"
    assert loaded.sources["dead_max"] == "credential"
    assert loaded.sources["max_attempts"] == "environment JOBQD_MAX_ATTEMPTS"
    assert loaded.sources["concurrency"] == "command line"


def test_a_credential_with_our_name_in_front_wins_and_loses_one_newline(read, tmp_path):
    (tmp_path / "redis_password").write_text("other")
    (tmp_path / "jobqd.redis_password").write_text(" pass word \n\n")
    (tmp_path / "unrelated").write_bytes(b"\xff")
    loaded = read(CREDENTIALS_DIRECTORY=str(tmp_path))
    assert loaded.settings.redis_password.get_secret_value() == " pass word \n"
    assert "pass word" not in repr(loaded)


def test_an_unreadable_credential_is_named(read, tmp_path):
    (tmp_path / "redis_password").write_bytes(b"\xff\xfe")
    (tmp_path / "queue").mkdir()
    text = refusal(read, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert "redis_password" in text
    assert "UTF-8" in text
    assert f"{tmp_path}/queue" in text


def test_the_first_file_that_is_there_is_read_alone(read, tmp_path):
    (tmp_path / "etc.toml").write_text("concurrency = 1\nlease = 1")
    assert read().settings.concurrency == 1
    loaded = read(toml="concurrency = 2")
    assert (loaded.settings.concurrency, loaded.settings.lease) == (2, 15.0)
    (tmp_path / "named.toml").write_text("concurrency = 3")
    assert read(JOBQD_CONFIG="named.toml").settings.concurrency == 3
    (tmp_path / "option.toml").write_text("concurrency = 4")
    loaded = read(config=Path("option.toml"), JOBQD_CONFIG="named.toml")
    assert loaded.settings.concurrency == 4
    assert loaded.path == tmp_path / "option.toml"


def test_a_named_file_must_be_there(read, tmp_path):
    text = refusal(read, config=Path("nowhere.toml"))
    assert f"{tmp_path}/nowhere.toml" in text
    assert "--config" in text
    assert "JOBQD_CONFIG" in refusal(read, JOBQD_CONFIG="nowhere.toml")


@pytest.mark.parametrize("content", [b"lease = ", b"queue = job_queue", b"\xff", b"max_ready = " + b"9" * 5000])
def test_a_file_that_is_not_toml_is_refused_with_its_place(read, tmp_path, content):
    (tmp_path / "jobqd.toml").write_bytes(content)
    text = refusal(read)
    assert "not valid TOML" in text
    assert f"{tmp_path}/jobqd.toml" in text


def test_a_directory_in_the_place_of_the_file_is_a_problem_and_not_passed_over(read, tmp_path):
    (tmp_path / "jobqd.toml").mkdir()
    assert "cannot be read" in refusal(read)


def test_an_empty_variable_counts_as_not_set(read):
    assert read(JOBQD_CONCURRENCY="", JOBQD_CONFIG="", JOBQD_REDIS_PASSWORD="").settings == read().settings


def test_one_type_by_file_and_environment(read):
    loaded = read(
        toml='[jobs.video_render]\nconcurrency = 2\ntimeout = "2h"\n[jobs."mail.send"]\nmax_attempts = 3',
        JOBQD_JOBS__VIDEO_RENDER__TIMEOUT="3h",
        JOBQD_JOBS__Thumb__nail__STALL_TIMEOUT="90",
    )
    jobs = loaded.settings.jobs
    assert (jobs["video_render"].concurrency, jobs["video_render"].timeout) == (2, 10800.0)
    assert jobs["mail.send"].max_attempts == 3
    assert jobs["Thumb__nail"].stall_timeout == 90.0
    assert loaded.sources["jobs.video_render.timeout"] == "environment JOBQD_JOBS__VIDEO_RENDER__TIMEOUT"
    assert loaded.sources["jobs.mail.send.max_attempts"].startswith("file ")


def test_relative_paths_count_from_the_working_directory(read, tmp_path):
    settings = read(JOBQD_APP_DIR="../app", JOBQD_RUNTIME_DIR="run", JOBQD_REDIS_URL="embedded://./var").settings
    assert settings.app_dir == tmp_path.parent / "app"
    assert settings.runtime_dir == tmp_path / "run"
    assert settings.redis_url == f"embedded://{tmp_path}/var"


def test_lock_files_go_where_systemd_or_the_session_says(read):
    assert default_runtime_dir({}, 7) == Path("/tmp/jobqd-7")
    loaded = read(XDG_RUNTIME_DIR="/run/user/7")
    assert (loaded.settings.runtime_dir, loaded.sources["runtime_dir"]) == (
        Path("/run/user/7/jobqd"),
        "environment XDG_RUNTIME_DIR",
    )
    loaded = read(XDG_RUNTIME_DIR="/run/user/7", RUNTIME_DIRECTORY="/run/a:/run/b")
    assert loaded.settings.runtime_dir == Path("/run/a")
    assert loaded.sources["runtime_dir"] == "environment RUNTIME_DIRECTORY"
    assert Settings().runtime_dir == Path(f"/tmp/jobqd-{os.getuid()}")


# ------------------------------------------------------------------------------------------------- secrets


def test_the_password_leaves_the_url_and_is_shown_nowhere(read):
    loaded = read(JOBQD_REDIS_URL="redis://app:S3cr@h/2")
    settings = loaded.settings
    assert settings.redis_url == "redis://h:6379/2"
    assert (settings.redis_username, settings.redis_password.get_secret_value()) == ("app", "S3cr")
    assert loaded.sources["redis_password"] == "environment JOBQD_REDIS_URL"
    assert "S3cr" not in f"{loaded!r} {settings} {shown(settings)} {settings.model_dump()}"


def test_credentials_given_apart_go_before_those_in_the_url(read):
    settings = read(JOBQD_REDIS_URL="redis://app:old@h", JOBQD_REDIS_PASSWORD="new").settings
    assert (settings.redis_username, settings.redis_password.get_secret_value()) == ("app", "new")
    settings = Settings(redis_url="redis://app:old@h", redis_username="other")
    assert (settings.redis_username, settings.redis_password.get_secret_value()) == ("other", "old")


@pytest.mark.parametrize(
    "argv",
    [
        {"redis_password": "S3cr"}, {"redis_url": "redis://:S3cr@h"}, {"redis_url": "redis://u:x/S3cr@h"},
        {"redis_url": "redis://S3cr@h"}, {"redis_url": "redis://h?username=S3cr"}, {"redis_url": "S3cr@h"},
        {"redis_url": "redis+sentinel://h/main?sentinel_password=S3cr"}, {"redis_url": "x?password=S3cr"},
    ],
)  # fmt: skip
def test_a_password_on_the_command_line_is_refused_with_the_remedy(read, argv):
    text = refusal(read, argv)
    assert "every user of this machine can read a command line" in text
    assert "JOBQD_REDIS_PASSWORD" in text
    assert "S3cr" not in text


@pytest.mark.parametrize(
    "toml",
    ['redis_pasword = "S3cr"', 'redis_url = "redis://u:S3cr@h:0"', 'redis_url = "redis://u:a/S3cr@h"',
     'redis_password = ["S3cr"]', 'redis_url = ["redis://u:S3cr@h"]', '[redis_url]\npassword = "S3cr"',
     'concurrency = "redis://:S3cr@h"', 'metrics = "redis://:S3cr@h"', 'handlers = "redis://:S3cr@h"',
     'handlers = ["redis://:S3cr@h"]', 'lease = "redis://S3cr@h"', 'app_dir = "redis://:S3cr@h\u0000"',
     'concurrency = { url = "redis://:S3cr@h" }', '[jobs.x]\ntimeout = "redis://:S3cr@h"', 'queue = "redis://:S3cr@h "',
     'redis_password = "S3cr"\nlease = -1', 'password = "S3cr"', '[jobs.x]\nredis_password = "S3cr"'],
)  # fmt: skip
def test_no_refusal_shows_a_secret(read, toml):
    assert "S3cr" not in refusal(read, toml=toml)


@pytest.mark.parametrize("name", ["queue", "key_prefix", "tls_ca", "app_dir", "runtime_dir"])
def test_a_url_in_the_wrong_setting_is_shown_without_its_password(name):
    settings = Settings(**{"redis_url": "rediss://h", name: "redis://:S3cr@h"})
    assert "S3cr" not in str(shown(settings))
    assert "S3cr" not in str(shown(_absolute(settings, Path("/srv/film"))))


def test_what_is_no_url_is_shown_as_it_is():
    assert shown(Settings(queue="jobs@host"))["queue"] == "jobs@host"


def test_a_user_without_a_password_may_be_a_password(read):
    loaded = read(JOBQD_REDIS_URL="redis://S3cr@h")
    assert shown(loaded.settings)["redis_username"] == "(hidden)"
    [warning] = loaded.warnings
    assert "redis://:PASSWORD@HOST" in warning
    assert "S3cr" not in warning
    loaded = read(JOBQD_REDIS_URL="redis://app@h", JOBQD_REDIS_PASSWORD="S3cr")
    assert (shown(loaded.settings)["redis_username"], loaded.warnings) == ("app", [])


def test_a_refused_model_shows_no_secret():
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url="redis://u:S3cr@h:0", redis_password=["S3cr"])
    assert "S3cr" not in str(caught.value)


def test_a_password_in_a_file_that_everybody_can_read_is_warned_of(read, tmp_path):
    (tmp_path / "jobqd.toml").touch(mode=0o644)
    (tmp_path / "jobqd.toml").chmod(0o644)
    [warning] = read(toml='redis_password = "S3cr"').warnings
    assert "chmod 640" in warning
    assert "S3cr" not in warning
    (tmp_path / "jobqd.toml").chmod(0o640)
    assert read().warnings == []


# ------------------------------------------------------------------------------------------------- misspelled


@pytest.mark.parametrize(
    ("toml", "remedy"),
    [
        ("concurency = 3", "did you mean concurrency?"),
        ('redis-url = "x"', "did you mean redis_url?"),
        ("[job.video_render]\ntimeout = 3", "did you mean jobs?"),
        ("[jobs.video_render]\ntiemout = 3", "did you mean timeout?"),
        ("[jobs.video_render]\nlease = 3", "above the first line that begins with ["),
        ("[jobs]\ntimeout = 3", "[jobs.TYPE]"),
        ("jobs = 3", "[jobs.TYPE]"),
        ("stall_timeout = 3", "[jobs.TYPE]"),
        ("colour = 3", "the settings there are: redis_url"),
    ],
)
def test_an_unknown_key_is_refused_with_the_right_one(read, toml, remedy):
    text = refusal(read, toml=toml)
    assert remedy in text
    assert "jobqd.toml" in text


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("JOBQD_CONCURENCY", "JOBQD_CONCURRENCY"),
        ("JOBQD_TIMEOT", "JOBQD_TIMEOUT"),
        ("JOBQD_REDISURL", "JOBQD_REDIS_URL"),
        ("JOBQD_REDIS_URI", "JOBQD_REDIS_URL"),
        ("JOBQD_QUEUES", "JOBQD_QUEUE"),
        ("JOBQD_LOGLEVEL", "JOBQD_LOG_LEVEL"),
        ("JOBQD_CONFIGS", "JOBQD_CONFIG"),
        ("jobqd_concurrency", "JOBQD_CONCURRENCY"),
        ("JOBQD_concurrency", "JOBQD_CONCURRENCY"),
        ("JOBQD_JOBS_VIDEO_RENDER_TIMEOUT", "JOBQD_JOBS__VIDEO_RENDER__TIMEOUT"),
        ("JOBQD_JOBS__VIDEO_RENDER__TIEMOUT", "JOBQD_JOBS__VIDEO_RENDER__TIMEOUT"),
        ("JOBQD_JOBS__TIMEOUT", "JOBQD_JOBS__TYPE__TIMEOUT"),
    ],
)
def test_a_variable_near_a_setting_is_refused(read, variable, meant):
    text = refusal(read, **{variable: "3"})
    assert variable in text
    assert f"did you mean {meant}?" in text


@pytest.mark.parametrize(
    "variable",
    ["JOBQD_SERVICE_HOST", "JOBQD_SERVICE_PORT", "JOBQD_SERVICE_PORT_HTTP", "JOBQD_PORT", "JOBQD_PORT_80_TCP",
     "JOBQD_PORT_80_TCP_ADDR", "JOBQD_PORT_80_TCP_PROTO", "JOBQD_REDIS_PORT", "JOBQD_REDIS_SERVICE_HOST",
     "JOBQD_REDIS_PORT_6379_TCP", "JOBQD_QUEUE_SERVICE_PORT", "JOBQD_JOBS_SERVICE_HOST", "JOBQD_VERSION"],
)  # fmt: skip
def test_what_container_platforms_inject_is_only_warned_of(read, variable):
    [warning] = read(**{variable: "tcp://10.0.0.1:80"}).warnings
    assert variable in warning


def test_an_unknown_name_on_the_command_line_is_refused(read):
    assert "did you mean --retry-delay?" in refusal(read, {"retry_dealy": "3"})


# ------------------------------------------------------------------------------------------------- wrong values

WRONG = [
    True,
    -1,
    1.5,
    "",
    "\x1b[31m",
    "x" * 500,
    [],
    {},
    [1],
    {"a": 1},
    datetime.date(2025, 1, 1),
    10**30,
    float("nan"),
]
TEXTS = {"redis_username", "queue", "key_prefix", "tls_ca", "runtime_dir", "app_dir", "redis_password"}


@pytest.mark.parametrize("name", [*setting_names(), *(f"jobs.video.{name}" for name in job_setting_names())])
def test_every_wrong_value_is_explained_in_words_of_ours(read, tmp_path, name):
    for value in WRONG:
        problems = []
        if _validated({tuple(name.split(".")): Given(value, "file /x")}, tmp_path, problems) is not None:
            continue
        [problem] = problems
        if problem.wrong.startswith("it is longer than the longest wait allowed"):
            continue
        assert problem.subject in (name, f"[jobs.video] {name.rpartition('.')[2]}")
        assert problem.origin == "file /x"
        assert problem.remedy.startswith("write ")
        assert problem.wrong != "it cannot be used"
        text = f"{problem.wrong} {problem.remedy} {problem.value}"
        assert "\x1b" not in text
        assert "nput" not in text
        assert len(text) < 500


@pytest.mark.parametrize("name", [name for name in setting_names() if name not in TEXTS])
def test_nonsense_is_refused_everywhere(read, name):
    text = refusal(read, **{f"JOBQD_{name.upper()}": "such nonsense"})
    assert f'{name} = "such nonsense"\n    set in  environment JOBQD_{name.upper()}' in text


@pytest.mark.parametrize("setting", ["concurrency = true", "lease = true", "max_result = true", "queue = 5"])
def test_a_value_of_another_type_is_not_converted(read, setting):
    assert setting in refusal(read, toml=setting)


@pytest.mark.parametrize(
    ("value", "shown"), [("\x9b31m", "\\x9b31m"), ("\udcff", "\\udcff"), ("a\u202eb", "a\\u202eb")]
)
def test_what_a_terminal_obeys_or_cannot_encode_is_escaped(read, value, shown):
    assert f'log_level = "{shown}"' in refusal(read, JOBQD_LOG_LEVEL=value)


def test_all_problems_are_reported_together(read):
    text = refusal(
        read, {"log_level": "loud"}, toml='colour = 1\nlease = "1ms"\n[jobs.x]\nconcurrency = 0', JOBQD_TIMEOT="1",
        JOBQD_REDIS_URL="http://h",
    )  # fmt: skip
    assert "6 problems" in text
    for part in ("colour", 'lease = "1ms"', "least allowed, 50ms", "[jobs.x] concurrency = 0", "JOBQD_TIMEOT",
                 'redis_url = "http://h"', 'log_level = "loud"', "set in  command line"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("environ", "subject"),
    [
        ({"JOBQD_RETRY_DELAY": "1h"}, "retry_delay"),
        ({"JOBQD_RETRY_MAX_DELAY": "1s"}, "retry_delay"),
        ({"JOBQD_JOBS__X__RETRY_DELAY": "5s", "JOBQD_JOBS__X__RETRY_MAX_DELAY": "4s"}, "[jobs.x] retry_delay"),
        ({"JOBQD_TLS_CA": "/dev/null"}, "tls_ca"),
        ({"JOBQD_TLS_CA": "/nowhere.pem", "JOBQD_REDIS_URL": "rediss://h"}, "tls_ca"),
        ({"JOBQD_REDIS_URL": "redis+cluster://h"}, "key_prefix"),
        ({"JOBQD_REDIS_URL": "redis+cluster://h", "JOBQD_KEY_PREFIX": "{}x:"}, "key_prefix"),
        ({"JOBQD_QUEUE": "job"}, "queue"),
        ({"JOBQD_QUEUE": "job:x"}, "queue"),
        ({"JOBQD_METRICS": f"unix:///run/{'x' * 50}/{{instance}}", "JOBQD_INSTANCE": "a" * 60}, "metrics"),
    ],
)
def test_what_is_wrong_only_together_is_refused(read, environ, subject):
    text = refusal(read, **environ)
    assert "(1 problem)" in text
    assert f"\n  {subject} = " in text


def test_what_is_right_together_is_not_refused(read):
    assert read(JOBQD_REDIS_URL="redis+cluster://h", JOBQD_KEY_PREFIX="{clips}:").settings.key_prefix == "{clips}:"
    assert read(JOBQD_REDIS_URL="rediss://h", JOBQD_TLS_CA="/dev/null").settings.tls_ca == Path("/dev/null")
    # The longest delay of this type may come from its decorator.
    assert read(JOBQD_JOBS__X__RETRY_DELAY="20m").settings.jobs["x"].retry_delay == 1200.0


def test_what_has_no_effect_is_warned_of(read):
    warnings = read(toml='[jobs.x]\nconcurrency = 33\ntimeout = "1m"\nstall_timeout = "2m"').warnings
    assert [warning.split(" = ")[0] for warning in warnings] == ["[jobs.x] concurrency", "[jobs.x] stall_timeout"]


def test_values_are_shown_exactly(read):
    settings = Settings(timeout=90061, lease="0.1234s", max_result=1500, allow_eviction=True, handlers="a:b, c.d:e")
    texts = shown(settings)
    assert (texts["timeout"], texts["lease"], texts["max_result"]) == ("90061s", "0.1234s", "1500")
    assert (texts["allow_eviction"], texts["handlers"]) == ("true", "a:b,c.d:e")


def test_settings_cannot_be_changed_and_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("CONCURRENCY", "7")
    monkeypatch.setenv("JOBQD_CONCURRENCY", "7")
    settings = Settings()
    assert settings.concurrency == 32
    with pytest.raises(ValidationError):
        settings.concurrency = 5
