"""The log, end to end: real pipes, a real pseudo-terminal, a real datagram socket."""

import io
import json
import logging
import os
import pty
import re
import socket
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from jobqd.errors import ConfigError
from jobqd.logs import RunLog, configure
from jobqd.logs.library import RATED_PER_SECOND, LibraryHandler
from jobqd.logs.writer import LineWriter, descriptor_write
from tests.support.log import RecordingLog

JOB = {"job_id": "0192aaaa-bbbb-7ccc-8ddd-eeeeffffa1f3", "job_type": "video_render", "attempt": 1, "fence": 3}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1_763_900_000.12

    async def sleep(self, seconds):
        self.now += seconds


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class Pipe:
    """A log system that writes to a pipe, read when it is closed."""

    def __init__(self, log_format="json", level="info", environ=None):
        reader, writer = os.pipe()
        self.reader = os.fdopen(reader, "rb")
        self.writer = os.fdopen(writer, "w", encoding="utf-8")
        self.system = configure(log_format, level, stream=self.writer, environ=environ or {}, clock=Clock())
        self.log = self.system.logger

    def text(self):
        with ThreadPoolExecutor(1) as threads:
            text = threads.submit(self.reader.read)
            self.close()
            return text.result(10).decode()

    def objects(self):
        return [json.loads(line, parse_constant=pytest.fail) for line in self.text().split("\n")[:-1]]

    def close(self):
        self.system.close()
        self.writer.close()


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()
    pipe.reader.close()


@pytest.fixture
def console():
    pipe = Pipe("console")
    yield pipe
    pipe.close()
    pipe.reader.close()


@pytest.fixture
def journald(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(5)
        server.bind(str(tmp_path / "socket"))
        yield server


@pytest.fixture
def journal(journald):
    system = configure("journald", "info", environ={}, journal_path=journald.getsockname())
    yield system
    system.close()


def entry(server):
    data, fields = server.recv(1 << 20), {}
    while data:
        head, _, data = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


# JSON lines


def test_json_is_one_object_a_line(pipe):
    pipe.log.info("job.completed", duration=4.2, text="a\nb\x1b\x9b\u2028ü", **JOB)
    line = pipe.text()
    assert line.count("\n") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", line)
    assert json.loads(line) == {
        "timestamp": "2025-11-23T12:13:20.120Z",
        "level": "info",
        "event": "job.completed",
        "duration": 4.2,
        "text": "a\nb\x1b\x9b\u2028ü",
        **JOB,
    }


def test_json_survives_any_value(pipe):
    loop = []
    loop.append(loop)
    deep = []
    for _ in range(5000):
        deep = [deep]
    pipe.log.info("x", bad=Unprintable(), nan=float("nan"), sur="\udc80", pair={(1, 2): b"x"}, loop=loop, deep=deep)
    pipe.log.info("x", huge=10**5000)
    first, second = pipe.objects()
    assert first["bad"] == "<Unprintable whose repr raises RuntimeError>"
    assert (first["nan"], first["sur"], first["pair"]) == ("nan", "\\udc80", {"(1, 2)": "b'x'"})
    assert second["huge"].startswith("<int whose repr")


def test_json_cuts_a_long_value_and_keeps_both_ends(pipe):
    pipe.log.info("x", long="a" * 200_000 + "z", short="s", many=list(range(100_000)))
    (line,) = pipe.objects()
    assert len(line["long"]) < 66_000
    assert len(line["many"]) < 66_000
    assert line["long"].endswith("z")
    assert line["short"] == "s"


def test_json_keeps_its_own_names(pipe):
    pipe.log.info("x", level="mine", timestamp=1, event="click")
    (line,) = pipe.objects()
    assert (line["level"], line["level_"], line["timestamp_"], line["event_"]) == ("info", "mine", 1, "click")


# The console


def test_a_completed_job_is_one_readable_line(console):
    console.log.info("job.completed", duration=4.2, waited=0.012, **JOB)
    console.log.info("job.completed", duration=0.01, **{**JOB, "job_type": "mail"})
    assert re.sub(r"\d\d:\d\d:\d\d", "TIME", console.text()) == (
        f"TIME ✓ video_render {JOB['job_id']} completed in 4.2s (waited 12ms, attempt 1)\n"
        f"TIME ✓ mail         {JOB['job_id']} completed in 10ms (attempt 1)\n"
    )


def test_every_line_shows_the_whole_id_and_an_unknown_event_its_fields(console):
    console.log.warning("job.retrying", error="boom", delay=30, max_attempts=10, **JOB)
    console.log.info("job.resized", width=3, note="a b", **JOB)
    retrying, resized = console.text().splitlines()
    assert retrying.endswith(f"! video_render {JOB['job_id']} failed: boom; runs again in 30s (attempt 1 of 10)")
    assert resized.endswith(f'• video_render {JOB["job_id"]} job.resized width=3 note="a b"')


def test_a_number_of_runs_needs_no_plural(console):
    console.log.info("daemon.drained", running=1)
    assert console.text().rstrip().endswith("drain_timeout is over: what still runs is ended (1 running)")


def test_values_cannot_break_a_line_or_steer_the_terminal(console):
    evil = "a\n12:00:00 ✓ fake\r\x1b[31m\x9b2J\u202e\udc80"
    console.log.info(evil, **{evil: evil, "job_id": evil, "job_type": evil})
    text = console.text()
    assert text.count("\n") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\\x1b[31m" in text


def test_tracebacks_and_stacks_are_indented(console):
    try:
        raise ValueError("two\nlines\x1b[0m")
    except ValueError:
        console.log.exception("oops")
    console.log.warning("loop.blocked", duration=1.2, stack="File a\n  b()", **JOB)
    lines = console.text().splitlines()
    assert lines[0].endswith("✗ oops")
    assert lines[1] == " " * 11 + "Traceback (most recent call last):"
    assert lines[-2:] == [" " * 11 + "File a", " " * 11 + "  b()"]
    assert all(line.startswith(" " * 11) for line in lines[1:-3])
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_auto_on_a_terminal_is_the_console_in_colour(environ, coloured):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        system = configure("auto", "info", stream=terminal, environ=environ)
        system.logger.info("daemon.ready", concurrency=32)
        system.close()
        text = os.read(leader, 4096).decode()
    os.close(leader)
    assert ("\x1b[" in text) is coloured
    assert "ready: 32 workers" in text


def test_a_terminal_without_unicode_gets_ascii():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    system = configure("console", "info", stream=raw, environ={})
    system.logger.info("job.completed", note="ü", **JOB)
    system.close()
    text = raw.buffer.getvalue()
    assert text.isascii()
    assert f"+ video_render {JOB['job_id']} completed".encode() in text


# The journal


def test_an_entry_carries_the_jobs_fields_and_the_caller(journal, journald):
    journal.logger.info("job.completed", duration=4.2, user_id=7, **JOB)
    fields = entry(journald)
    assert fields.pop("CODE_LINE").isdigit()
    assert fields == {
        "MESSAGE": f"video_render {JOB['job_id']} completed in 4.2s (attempt 1) user_id=7",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "jobqd",
        "EVENT": "job.completed",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_carries_the_jobs_fields_and_the_caller",
        "DURATION": "4.2",
        "USER_ID": "7",
        "JOB_ID": JOB["job_id"],
        "JOB_TYPE": "video_render",
        "JOB_ATTEMPT": "1",
        "JOB_FENCE": "3",
    }


def test_a_traceback_is_one_field_and_ends_the_message(journal, journald):
    try:
        raise ValueError("boom")
    except ValueError:
        journal.logger.exception("it failed")
    fields = entry(journald)
    assert fields["MESSAGE"] == "it failed: ValueError: boom"
    assert fields["EXCEPTION"].startswith("Traceback (most recent call last):\n")
    assert fields["EXCEPTION"].endswith("\nValueError: boom")
    assert fields["PRIORITY"] == "3"
    assert "EVENT" not in fields


def test_a_jobs_fields_cannot_pass_for_ours(journal, journald):
    forged = {"message": "forged", "priority": 0, "_uid": 0, "syslog_identifier": "sshd", "JOB_ID": "9"}
    journal.logger.info("real", **forged)
    fields = entry(journald)
    assert fields["PRIORITY"] == "6"
    assert fields["MESSAGE"].startswith("real")
    assert fields["SYSLOG_IDENTIFIER"] == "jobqd"
    assert (fields["FIELD_MESSAGE"], fields["FIELD_PRIORITY"], fields["UID"]) == ("forged", "0", "0")
    assert (fields["FIELD_JOB_ID"], "JOB_ID" in fields) == ("9", False)


def test_auto_chooses_the_journal_when_stderr_is_it(tmp_path, journald):
    with (tmp_path / "stderr").open("w") as stream:
        stat = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        system = configure("auto", "info", stream=stream, environ=environ, journal_path=journald.getsockname())
        system.logger.info("hello")
        system.close()
    assert entry(journald)["MESSAGE"] == "hello"


# Levels, loggers, libraries


def test_a_new_level_holds_for_loggers_already_bound(pipe):
    bound = pipe.log.bind(job_id="1")
    bound.debug("hidden")
    logging.getLogger("library").debug("hidden")
    pipe.system.set_level("debug")
    bound.debug("shown")
    logging.getLogger("library").debug("shown too")
    pipe.system.set_level("error")
    bound.warning("hidden")
    logging.getLogger("library").warning("hidden")
    assert [line["event"] for line in pipe.objects()] == ["shown", "shown too"]


def test_standard_logging_and_warnings_reach_the_same_place(pipe):
    library = logging.getLogger("some.library")
    library.info("hidden")
    library.warning("wrong %s", "arguments", extra={"retries": 3})
    wrong = logging.LogRecord("x", logging.WARNING, __file__, 1, "too few %s %s", (Unprintable(),), None)
    ours = next(item for item in logging.getLogger().handlers if isinstance(item, LibraryHandler))
    ours.handle(wrong)  # to it alone: the test runner's own handler raises
    warnings.showwarning("old call", UserWarning, "app.py", 7)  # what the interpreter does with a warning
    lines = pipe.objects()
    assert (lines[0]["event"], lines[0]["logger"], lines[0]["retries"]) == (
        "wrong arguments",
        "some.library",
        3,
    )
    assert lines[1]["event"].startswith("too few %s %s")
    assert "old call" in lines[2]["event"]


def test_standard_logging_carries_the_context_of_the_job(pipe):
    with structlog.contextvars.bound_contextvars(job_id="77"):
        logging.getLogger("library").warning("inside")
        structlog.get_logger().info("application")
    assert [line["job_id"] for line in pipe.objects()] == ["77", "77"]


def test_close_gives_standard_logging_and_structlog_back():
    root = logging.getLogger()
    root.setLevel(logging.ERROR)
    before = (root.level, list(root.handlers), structlog.is_configured())
    pipe = Pipe()
    assert structlog.is_configured()
    pipe.close()
    pipe.reader.close()
    after = (root.level, list(root.handlers), structlog.is_configured())
    root.setLevel(logging.WARNING)
    assert after == before


def test_a_log_call_never_raises(pipe):
    pipe.log.info("%d and %s", "x", Unprintable())
    pipe.log.info(Unprintable())
    pipe.log.info(b"\xff", exc_info=("nonsense",))
    pipe.log.log(25, "between")
    assert [line["level"] for line in pipe.objects()] == ["info"] * 4


@pytest.mark.parametrize(
    ("log_format", "level", "says"),
    [
        ("xml", "info", "log_format is 'xml'"),
        ("json", "loud", "log_level is 'loud'"),
        ("journald", "info", "socket"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(tmp_path, log_format, level, says):
    with pytest.raises(ConfigError, match=says):
        configure(log_format, level, environ={}, journal_path=tmp_path / "none")


def test_a_record_that_cannot_be_made_is_counted(pipe):
    def refuse(*_):
        raise RuntimeError

    before = pipe.system.dropped
    type(pipe.log)(pipe.log._logger, [refuse], {}).info("lost")
    assert pipe.system.dropped == before + 1


# Streams that stall or are gone


def test_a_stalled_reader_never_blocks_and_hears_of_the_loss(pipe):
    line = "x" * 60_000
    for _ in range(300):
        pipe.log.info("filler", line=line)
    assert pipe.system.dropped > 0
    dropped = pipe.system.dropped
    written = 300 - dropped
    received = [json.loads(pipe.reader.readline()) for _ in range(written + 1)]
    lost = [entry for entry in received if entry["event"] == "log.dropped"]
    assert [entry["count"] for entry in lost] == [dropped]
    for _ in range(20):
        pipe.log.info("room again", line=line)
        assert json.loads(pipe.reader.readline())["event"] == "room again"
    assert pipe.system.dropped == dropped


def test_close_does_not_wait_for_a_stalled_reader_for_ever():
    reader, writer = os.pipe()
    ended = threading.Event()
    lines = LineWriter(descriptor_write(writer), lambda count: b"", ended.set)
    lines.put(b"x" * 1_000_000)
    lines.put(b"left behind")
    lines.close(timeout=0.01)
    assert not ended.is_set()
    assert lines.dropped >= 1
    os.close(reader)  # the thread ends with EPIPE
    assert ended.wait(5)
    os.close(writer)


@pytest.mark.parametrize("stream", ["closed", "broken pipe", "full device"])
def test_a_stream_that_is_gone_costs_lines_and_nothing_else(stream):
    reader, writer = os.pipe()
    if stream == "full device":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    target = os.fdopen(writer, "w")
    if stream == "closed":
        target.close()
    os.close(reader)
    system = configure("json", "info", stream=target, environ={})
    system.logger.info("lost")
    system.close()
    assert system.dropped == 1
    target.close()


def test_a_stream_without_a_descriptor_is_written():
    stream = io.StringIO()
    system = configure("json", "info", stream=stream, environ={})
    system.logger.info("x")
    system.close()
    assert json.loads(stream.getvalue())["event"] == "x"


# The lines of runs


def test_runs_are_sampled_and_what_is_left_out_is_told_each_second(pipe):
    clock = Clock()
    runs = RunLog(pipe.log, clock, limit_per_second=3)

    def end_some(count):
        for _ in range(count):
            if runs.admit():
                runs.ended("job.completed", job_id="1")

    end_some(10)
    clock.now += 0.5
    end_some(5)
    clock.now += 0.5
    end_some(2)
    clock.now += 1.0
    runs.tick()
    runs.tick()
    events = [(line["event"], line.get("count")) for line in pipe.objects()]
    completed = ("job.completed", None)
    assert events == [completed] * 3 + [("job.lines_suppressed", 12)] + [completed] * 2


def test_the_last_suppressed_lines_are_told_without_another_run(pipe):
    clock = Clock()
    runs = RunLog(pipe.log, clock, limit_per_second=0)
    assert not runs.admit()
    runs.tick()
    clock.now += 1.0
    runs.tick()
    assert not runs.admit()
    runs.flush()
    runs.flush()
    assert [line["count"] for line in pipe.objects()] == [1, 1]


def test_trouble_with_jobs_is_sampled_and_what_jobs_log_is_not(pipe):
    clock = Clock()
    log = RunLog(pipe.log, clock, trouble_per_second=2)
    for _ in range(3):
        log.error("job.dead", job_id="1")
        log.warning("job.dropped", job_id="1")
        log.error("job.not_recorded", job_id="1")
        log.warning("redis.away")
        log.bind(job_id="1").warning("job.dead")
    clock.now += 1.0
    log.info("job.snoozed")
    lines = pipe.objects()
    events = Counter(line["event"] for line in lines)
    assert events["job.dead"] == 1 + 3
    assert (events["job.dropped"], events["job.snoozed"]) == (1, 1)
    assert events["job.not_recorded"] == events["redis.away"] == 3
    assert [line["count"] for line in lines if line["event"] == "job.lines_suppressed"] == [4]


@pytest.mark.parametrize("event", ["hook.failed", "hook.skipped", "job.broke", "loop.exit_refused"])
def test_trouble_with_handlers_is_sampled_too(pipe, event):
    log = RunLog(pipe.log, Clock(), trouble_per_second=2)
    for _ in range(5):
        log.error(event)
    log.flush()
    assert [(line["event"], line.get("count")) for line in pipe.objects()] == [
        *[(event, None)] * 2,
        ("job.lines_suppressed", 3),
    ]


def test_an_id_of_any_length_is_a_short_field(pipe):
    pipe.log.info("job.completed", job_id="x" * 100_000, job_type="y" * 300, other="z" * 1000)
    [line] = pipe.objects()
    assert len(line["job_id"]) < 400
    assert "characters left out" in line["job_id"]
    assert (len(line["job_type"]), len(line["other"])) == (300, 1000)


def test_nothing_is_admitted_below_the_level():
    pipe = Pipe(level="warning")
    runs = RunLog(pipe.log, Clock())
    assert not runs.admit()
    assert pipe.text() == ""
    pipe.reader.close()


def test_an_error_of_many_lines_is_one_short_line_and_the_rest_is_in_the_traceback(console):
    said = "\n".join(f"[libx264] line {number}" for number in range(100))
    fields = {"error": f"ffmpeg ended with status 1: {said}", "error_type": "ProgramError", "traceback": said}
    console.log.warning("job.retrying", **fields, waited=0.1, **JOB)
    first, *rest = console.text().splitlines()
    assert "failed: ProgramError: ffmpeg ended with status 1: [libx264] line 0 | [libx264] line 1 | " in first
    assert "\\n" not in first
    assert "line 99; runs again" in first
    assert len(first) < 700
    assert rest[-1].strip() == "[libx264] line 99"


def test_trouble_that_the_daemon_lives_with_has_no_cross(console):
    for event in ("loop.blocked", "job.dead", "oops"):
        console.log.error(event)
    console.log.critical("daemon.crashed")
    assert [line.split()[1] for line in console.text().splitlines()] == ["!", "✗", "✗", "✗"]


def test_a_message_does_not_repeat_the_error_that_it_tells(journal, journald):
    journal.logger.error("job.dead", error="no film", error_type="OSError", traceback="T:\nOSError: no film", **JOB)
    assert entry(journald)["MESSAGE"].endswith("is dead-lettered: OSError: no film (attempt 1)")


@pytest.mark.parametrize("name", ["asyncio", "concurrent.futures"])
def test_what_asyncio_tells_of_jobs_is_kept_to_a_rate(pipe, name):
    clock = pipe.system.logger._logger.clock
    runs = RunLog(pipe.log, clock, also=pipe.system.take_left_out)
    for _ in range(RATED_PER_SECOND + 5):
        logging.getLogger(name).error("Task exception was never retrieved")
        logging.getLogger("some.library").error("again")
    clock.now += 1.0
    logging.getLogger(name).error("Task exception was never retrieved")
    runs.tick()
    clock.now += 1.0
    runs.tick()
    lines = pipe.objects()
    assert Counter(line.get("logger") for line in lines) == {
        name: RATED_PER_SECOND + 1,
        "some.library": RATED_PER_SECOND + 5,
        None: 1,
    }
    assert [line["count"] for line in lines if line["event"] == "job.lines_suppressed"] == [5]


def test_a_log_is_kept_to_a_rate_once():
    log = RunLog(RecordingLog(), Clock())
    assert RunLog.over(log, Clock()) is log
    assert isinstance(RunLog.over(RecordingLog(), Clock()), RunLog)
