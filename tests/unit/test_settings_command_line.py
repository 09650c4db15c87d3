"""The command line `jobqd`, with a stand-in for the daemon behind it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import jobqd
from jobqd.cli.daemon import main
from jobqd.errors import ConfigError
from jobqd.settings.model import setting_names


@pytest.fixture
def app(monkeypatch, tmp_path):
    """A stand-in for `jobqd.app` that records what it is given, in a clean directory and environment."""
    for variable in [name for name in os.environ if name.startswith(("JOBQD_", "CREDENTIALS_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("jobqd.app")
    module.findings, module.calls = [], []

    def run(loaded, *, again, burst):
        module.calls.append((loaded, burst))
        module.again = again
        return 7

    module.run = run
    module.check = lambda loaded: module.findings
    monkeypatch.setitem(sys.modules, "jobqd.app", module)
    return module


def finding(ok, subject, message="as it should be"):
    return SimpleNamespace(ok=ok, subject=subject, message=message)


def test_run_passes_settings_and_the_exit_status_on(app, tmp_path):
    (tmp_path / "x.toml").write_text("concurrency = 5")
    arguments = ["--config", "x.toml", "--burst", "--retry-delay", "3s", "--allow-eviction", "--key-prefix", ""]
    assert main(["run", *arguments]) == 7
    [(loaded, burst)] = app.calls
    assert burst is True
    assert (loaded.settings.concurrency, loaded.settings.retry_delay) == (5, 3.0)
    assert loaded.settings.allow_eviction is True
    assert loaded.sources["key_prefix"] == "command line"
    assert loaded.path == tmp_path / "x.toml"


def test_a_reload_reads_the_same_file_again_wherever_the_daemon_has_gone(app, tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text("concurrency = 5")
    main(["run", "--config", "x.toml", "--retry-delay", "3s"])
    (tmp_path / "x.toml").write_text("concurrency = 6")
    monkeypatch.chdir("/")
    settings = app.again({"JOBQD_LEASE": "20s"}).settings
    assert (settings.concurrency, settings.retry_delay, settings.lease) == (6, 3.0, 20.0)


def test_run_without_options(app):
    assert main(["run"]) == 7
    [(loaded, burst)] = app.calls
    assert burst is False
    assert set(loaded.sources.values()) <= {"default", "environment XDG_RUNTIME_DIR"}


@pytest.mark.parametrize("command", ["run", "check"])
def test_wrong_settings_are_told_on_stderr_with_status_78(app, capsys, command):
    assert main([command, "--lease", "soon"]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert 'lease = "soon"' in err
    assert "command line" in err


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_configuration_that_the_daemon_refuses_has_status_78(app, capsys, command):
    def refuse(*_, **__):
        raise ConfigError("no handlers")

    app.run = app.check = refuse
    assert main([command]) == 78
    assert capsys.readouterr().err == "jobqd: no handlers\n"


@pytest.mark.parametrize(
    "arguments", [["--redis-password", "S3cr"], ["--redis-password=S3cr"], ["--redis-url", "redis://:S3cr@h"]]
)
def test_a_password_is_never_accepted(app, capsys, arguments):
    assert main(["run", *arguments]) == 78
    err = capsys.readouterr().err
    assert "LoadCredential=" in err
    assert "S3cr" not in err
    assert app.calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["start"], "invalid choice"),
        (["run", "--concurency", "3"], "did you mean --concurrency?"),
        (["run", "--redis-pasword", "S3cr"], "did you mean --redis-password?"),
        (["run", "--xyz=S3cr"], "see jobqd run --help"),
        (["run", "--concurrenc", "3"], "did you mean --concurrency?"),
        (["unit", "--redis-url", "redis://:S3cr@h"], "no option --redis-url: see jobqd unit --help"),
        (["unit", "--app-dri", "/srv"], "did you mean --app-dir?"),
        (["run", "--brust"], "did you mean --burst?"),
        (["check", "S3cr"], "too many"),
        (["check", "--burst"], "no option --burst"),
        (["run", "-i", "a"], "no option -i"),
        (["check", "-i", "a", "--config", "x.toml"], "leave out --config"),
        (["reload", "-i", "a", "--config", "x.toml"], "leave out --config"),
    ],
)
def test_a_command_line_that_is_not_understood_has_status_2(app, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "S3cr" not in err


def test_every_setting_but_the_password_has_an_option_with_help(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    for name in setting_names():
        assert (f"  --{name.replace('_', '-')} " in text) is (name != "redis_password")


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"jobqd {jobqd.__version__}\n"


def test_check_shows_settings_sources_and_findings(app, capsys, monkeypatch):
    monkeypatch.setenv("JOBQD_REDIS_URL", "redis://u:S3cr@h")
    monkeypatch.setenv("JOBQD_PORT", "1")
    monkeypatch.setenv("JOBQD_JOBS__VIDEO_RENDER__TIMEOUT", "2h")
    app.findings = [finding(True, "handlers"), finding(None, "redis", "no AOF\nsee the docs")]
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert "S3cr" not in text
    assert "\x1b" not in text
    assert any(line.split() == ["redis_url", "redis://h:6379/0", "environment", "JOBQD_REDIS_URL"] for line in lines)
    assert any(line.split() == ["redis_password", "(hidden)", "environment", "JOBQD_REDIS_URL"] for line in lines)
    assert any(line.split()[:2] == ["jobs.video_render.timeout", "2h"] for line in lines)
    assert any(line.split()[:3] == ["warning", "settings", "the"] and "JOBQD_PORT" in line for line in lines)
    assert "  ok       handlers  as it should be" in lines
    assert lines[-2:] == ["  warning  redis     no AOF", "                     see the docs"]


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([], 0),
        ([finding(None, "redis")], 0),
        ([finding(True, "handlers"), finding(False, "redis")], 69),
        ([finding(False, "handlers"), finding(True, "redis")], 78),
        ([finding(False, "handlers"), finding(False, "redis")], 78),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_has_a_status_for_what_is_wrong(app, capsys, findings, status, options):
    app.findings = findings
    assert main(["check", *options]) == status


def test_check_as_json(app, capsys, monkeypatch):
    monkeypatch.setenv("JOBQD_REDIS_PASSWORD", "S3cr")
    app.findings = [finding(False, "redis", "refused")]
    assert main(["check", "--json"]) == 69
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["settings"]["lease"] == {"value": "15s", "source": "default"}
    assert document["settings"]["redis_password"]["value"] == "(hidden)"
    assert document["findings"] == [{"ok": False, "subject": "redis", "message": "refused"}]
    assert (document["config"], document["warnings"]) == (None, [])


def test_check_as_json_of_wrong_settings_is_json_too(app, capsys):
    assert main(["check", "--json", "--lease", "soon"]) == 78
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert "lease" in document["error"]


def test_check_is_coloured_on_a_terminal_only(app, monkeypatch):
    app.findings = [finding(False, "redis")]
    monkeypatch.setenv("TERM", "xterm")
    for no_color, expected in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        outer, inner = pty.openpty()
        with os.fdopen(inner, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            main(["check"])
        shown = b"".join(all_of(outer))
        os.close(outer)
        assert (b"\x1b[31mWRONG" in shown) is expected


def all_of(terminal):
    """What was written to a terminal whose other end is closed: a read returns what has come so far, then fails."""
    with contextlib.suppress(OSError):
        while text := os.read(terminal, 65536):
            yield text


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path):
    program = (
        "import sys, types; app = types.ModuleType('jobqd.app'); app.check = lambda loaded: []; "
        "sys.modules['jobqd.app'] = app; from jobqd.cli.daemon import main; sys.exit(main(['check']))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environ,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
