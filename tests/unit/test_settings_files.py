"""The files in config/ say what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from jobqd.settings import Settings, load
from jobqd.settings.model import job_setting_names, setting_names

CONFIG = Path(__file__).parents[2] / "config"
TOML = (CONFIG / "jobqd.toml").read_text()
ENVIRONMENT = (CONFIG / "jobqd.env").read_text()
EXAMPLES = {"redis_username", "redis_password", "tls_ca", "runtime_dir"}
"""Settings without a default that could be written down: the files show an example."""


def uncommented() -> str:
    return re.sub(r"^# (\w+ = |\[)", r"\1", TOML, flags=re.MULTILINE)


def variables() -> dict[str, str]:
    return dict(re.findall(r"^#?(JOBQD_\w+)=(.*)$", ENVIRONMENT, flags=re.MULTILINE))


def test_the_toml_file_as_it_stands_changes_nothing(tmp_path):
    assert tomllib.loads(TOML) == {}
    assert load(environ={}, config=CONFIG / "jobqd.toml", cwd=tmp_path).warnings == []


def test_the_toml_file_names_every_setting_in_order_with_its_default():
    document = tomllib.loads(uncommented())
    assert list(document) == [*setting_names(), "jobs"]
    given = {name: value for name, value in document.items() if name not in EXAMPLES and name != "jobs"}
    assert Settings(**given).model_dump(exclude={"runtime_dir"}) == Settings().model_dump(exclude={"runtime_dir"})


def test_the_toml_file_shows_every_setting_of_a_type():
    jobs = tomllib.loads(uncommented())["jobs"]
    assert {name: list(table) for name, table in jobs.items()} == {"video_render": job_setting_names()}


def test_the_uncommented_toml_file_loads(tmp_path):
    file = tmp_path / "jobqd.toml"
    text = (
        uncommented().replace("redis://localhost", "rediss://localhost").replace("/etc/ssl/redis-ca.pem", "/dev/null")
    )
    file.touch(mode=0o600)
    file.write_text(text)
    loaded = load(environ={}, config=file, cwd=tmp_path)
    assert set(loaded.sources.values()) == {f"file {file}"}
    assert loaded.warnings == []


def test_the_environment_file_names_every_setting_in_order_with_its_default(tmp_path):
    found = variables()
    names = [
        "CONFIG",
        *map(str.upper, setting_names()),
        *(f"JOBS__VIDEO_RENDER__{name.upper()}" for name in job_setting_names()),
    ]
    assert list(found) == [f"JOBQD_{name}" for name in names]
    del found["JOBQD_CONFIG"]
    without = {
        variable: value for variable, value in found.items() if variable.removeprefix("JOBQD_").lower() not in EXAMPLES
    }
    loaded = load(environ=without, cwd=tmp_path, system_file=tmp_path / "none")
    assert loaded.warnings == []
    excluded = {"jobs", "app_dir"}
    assert loaded.settings.model_dump(exclude=excluded) == Settings().model_dump(exclude=excluded)


@pytest.mark.parametrize("line", ENVIRONMENT.splitlines())
def test_a_line_of_the_environment_file_is_prose_a_variable_or_empty(line):
    # systemd reads a comment only from the beginning of a line, and keeps one behind a value as part of it.
    assert re.fullmatch(r"(#|# .*|#JOBQD_[A-Z_]+=[^ #]*|)", line)


def test_both_files_show_the_same_example_of_a_type(tmp_path):
    environ = {variable: value for variable, value in variables().items() if "JOBS__" in variable}
    loaded = load(environ=environ, cwd=tmp_path, system_file=tmp_path / "none")
    assert loaded.settings.jobs == Settings(jobs=tomllib.loads(uncommented())["jobs"]).jobs


def test_every_setting_is_described():
    described = [field.description for field in Settings.model_fields.values()]
    assert all(text and text.endswith(".") for text in described)
