# ruff: noqa: F811 - fixtures come from the module of the other commands
"""The commands of `jobq` for what went wrong: repair, dead show, dead purge, logs; run as people run them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from jobqd.store import running
from tests.integration.test_jobq import beat, claim, jobq, redis_server, seat, settle  # noqa: F401 - fixtures

LETTER = {"error": "no such address", "error_type": "Fail", "traceback": "line 1\nline 2"}


async def bury(jobq, link, seat, *ids: str, job_type: str = "mail") -> None:
    for name in ids:
        jobq("enqueue", job_type, "to=a", "--id", name)
        await settle(link, seat, await claim(link, seat, job_type), "dead", **LETTER)


async def half(raw, keys, *ids: str, created: str = "1763900000") -> None:
    for name in ids:
        await raw.hset(keys.job(name), mapping={"status": "queued", "type": "mail", "created_at": created})


async def test_repair_tells_first_and_acts_when_asked(jobq, keys, raw):
    await half(raw, keys, "lost")
    await raw.rpush(keys.dead, "nobody")
    told = jobq("repair")
    assert told.returncode == 1
    assert [row.split()[0] for row in told.stdout.splitlines()] == ["ID", "lost", "nobody"]
    assert "2 things wrong; nothing was changed: add --yes" in told.stderr
    assert await raw.exists(keys.ready) == 0
    done = jobq("repair", "--yes")
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "2 things put right")
    assert await raw.zcard(keys.ready) == 1
    assert jobq("repair").stdout == "nothing is wrong\n"
    assert jobq.json("repair") == {"repaired": False, "findings": []}


async def test_repair_leaves_young_enqueues_alone(jobq, keys, raw):
    await half(raw, keys, "young", created=str(time.time()))
    assert jobq.json("repair")["findings"] == []
    found = jobq.json("repair", "--older-than", "0")
    assert found["findings"] == [{"what": "enqueued", "id": "young"}]
    assert jobq("repair", "--older-than", "soon").returncode == 2


async def test_repair_shows_twenty_of_a_kind(jobq, keys, raw):
    await half(raw, keys, *(f"j{number:02}" for number in range(23)))
    lines = jobq("repair").stdout.splitlines()
    assert len(lines) == 22
    assert "and 3 more" in lines[-1]
    assert len(jobq.json("repair")["findings"]) == 23


async def test_a_dead_letter_is_shown_whole(jobq, link, seat):
    await bury(jobq, link, seat, "a")
    page = jobq("dead", "show", "a")
    assert page.returncode == 0
    for words in ("Fail: no such address", "line 2", '"to": "a"', "failed"):
        assert words in page.stdout
    assert "jobq dead retry a" in page.stderr
    assert jobq.json("dead", "show", "a")["error"] == "no such address"
    jobq("enqueue", "mail", "--id", "b")
    assert (jobq("dead", "show", "b").returncode, jobq("dead", "show", "c").returncode) == (1, 1)
    assert "it is queued" in jobq("dead", "show", "b").stderr


async def test_purge_tells_first_and_acts_when_asked(jobq, link, seat, keys, raw):
    await bury(jobq, link, seat, "a", "b")
    await bury(jobq, link, seat, "film", job_type="film")
    told = jobq("dead", "purge", "--type", "mail")
    assert (told.returncode, told.stdout.splitlines()[0]) == (1, "2 dead letters would be deleted")
    assert "nothing was deleted: add --yes" in told.stderr
    assert await raw.lrange(keys.dead, 0, -1) == ["film", "b", "a"]
    assert jobq("dead", "purge", "--older-than", "1d", "--yes").stdout == "0 deleted\n"
    assert jobq("dead", "purge", "--type", "mail", "--yes").stdout == "2 deleted\n"
    assert await raw.lrange(keys.dead, 0, -1) == ["film"]
    assert jobq("dead", "purge", "--all", "--yes").stdout == "1 deleted\n"
    assert await raw.exists(keys.dead, keys.job("a"), keys.job("film")) == 0


async def test_purge_by_id_answers_for_each(jobq, link, seat):
    await bury(jobq, link, seat, "a", "b")
    jobq("enqueue", "mail", "--id", "lives")
    assert jobq.json("dead", "purge", "a", "lives", "nope") == {"a": "doomed", "lives": "queued", "nope": "gone"}
    done = jobq("dead", "purge", "a", "lives", "--yes")
    assert (done.returncode, done.stdout) == (1, "a      deleted\nlives  not dead: queued\n")
    assert jobq("dead", "purge", "b", "--older-than", "1h", "--yes").stdout == "b  left: it failed more lately\n"
    assert jobq("dead", "purge", "b", "--yes").returncode == 0


@pytest.mark.parametrize("arguments", [(), ("--yes",), ("--all", "a"), ("--older-than", "soon")])
def test_a_purge_of_nothing_in_particular_is_refused(jobq, arguments):
    assert jobq("dead", "purge", *arguments).returncode == 2


# ------------------------------------------------------------------------------------------------------------- logs


@pytest.fixture
def journalctl(jobq, tmp_path):
    """A program in place of journalctl: it keeps its arguments and prints what the test wants.

    What the real one says is tested in tests/systemd.
    """
    folder = tmp_path / "bin"
    folder.mkdir()

    def install(*entries: dict[str, object]) -> None:
        (folder / "entries").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        script = f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {folder}/arguments\ncat {folder}/entries\n"
        (folder / "journalctl").write_text(script)
        (folder / "journalctl").chmod(0o755)

    jobq.environment = {**jobq.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    install.arguments = lambda: (folder / "arguments").read_text().splitlines()
    install.remove = lambda: jobq.environment.update(PATH=str(folder))
    return install


def entry(message: object, **fields: object) -> dict[str, object]:
    return {"__REALTIME_TIMESTAMP": "1763900000120000", "PRIORITY": "6", "JOB_ID": "x-1", "JOB_TYPE": "mail",
            "MESSAGE": message, **fields}  # fmt: skip


def test_the_lines_of_a_job(jobq, journalctl):
    trace = "Traceback:\nValueError: no"
    journalctl(
        entry("mail x-1 started"),
        entry([109, 27, 91, 50, 74]),
        entry("mail x-1 failed: no", PRIORITY="4", EVENT="job.retrying", EXCEPTION=trace),
        {"__REALTIME_TIMESTAMP": "x"},
    )
    done = jobq("logs", "x-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == textwrap.dedent("""\
        2025-11-23 12:13:20  started
        2025-11-23 12:13:20  m\\x1b[2J
        2025-11-23 12:13:20  failed: no
                             Traceback:
                             ValueError: no
    """)
    documents = [json.loads(line) for line in jobq("logs", "x-1", "--json").stdout.splitlines()]
    assert [document["level"] for document in documents] == ["info", "info", "warning"]
    assert documents[2]["exception"] == trace
    assert documents[2]["fields"] == {"JOB_ID": "x-1", "JOB_TYPE": "mail"}


@pytest.mark.parametrize("job_id", ["a b;$(id)", "--help", "-f", "ü\u202e", "x" * 400])
def test_no_id_is_more_than_an_id(jobq, journalctl, job_id):
    journalctl(entry("started"))
    assert jobq("logs", "--", job_id).returncode == 0
    *options, identifier, wanted = journalctl.arguments()
    assert all(option.startswith("--") for option in options)
    assert identifier == "SYSLOG_IDENTIFIER=jobqd"
    logged = {"ü\u202e": "ü\\u202e"}.get(job_id, job_id)
    assert wanted.startswith(f"JOB_ID={logged[:200]}")
    assert "left out" in wanted or wanted == f"JOB_ID={logged}"


async def test_where_no_line_is_it_is_told_where_to_look(jobq, journalctl, link, seat, tmp_path):
    journalctl()
    told = jobq("logs", "a")
    assert (told.returncode, told.stdout) == (1, "")
    assert "no such job in the queue either" in told.stderr
    jobq("enqueue", "mail", "--id", "a")
    assert "no daemon has run it yet: it is queued" in jobq("logs", "a").stderr
    await claim(link, seat, "mail")
    assert "has ended: look on the machine it ran on" in jobq("logs", "a").stderr
    await beat(link, seat, "mail")
    assert "daemon a on web1" in jobq("logs", "a").stderr
    await link.run(running.beat(seat, {"instance": "b", "host": socket.gethostname(), "pid": 7}, []))
    assert "daemon b (pid 7) on this machine ran it last" in jobq("logs", "a").stderr
    program = [sys.executable, "-c", "input()", "jobqd"]
    with (
        (tmp_path / "log").open("w") as stderr,
        subprocess.Popen(program, stdin=subprocess.PIPE, stderr=stderr) as daemon,
    ):
        await link.run(running.beat(seat, {"instance": "b", "host": socket.gethostname(), "pid": daemon.pid}, []))
        told = jobq("logs", "a").stderr
        daemon.communicate(b"\n")
    assert f"it logs to the file {tmp_path / 'log'}, unless log_format is journald" in told


async def test_where_there_is_no_journalctl_it_is_told(jobq, journalctl):
    journalctl.remove()
    told = jobq("logs", "a")
    assert told.returncode == 1
    assert told.stderr.startswith("jobq: there is no journalctl on this machine\n")
