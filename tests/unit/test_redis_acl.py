"""config/redis-acl.conf grants each user what its scripts and commands need, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jobqd

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(jobqd.__file__).parent / "scripts"
CONNECTING = {"ping", "select", "role", "cluster|slots"}
EVALUATING = {"eval", "evalsha"}
READING = {
    "time", "type", "hmget", "hgetall", "pttl", "smembers", "llen", "lrange", "zcard", "zcount", "zrange",
    "zrangebyscore", "zrank", "zscore", "subscribe", "unsubscribe",
}  # fmt: skip
FOLLOWING = {"time", "type", "hmget", "hgetall", "pttl", "zrangebyscore", "zrank", "zscore", "subscribe", "unsubscribe"}
SERVING = {
    "info", "client|id", "client|tracking", "client|trackinginfo", "subscribe", "time", "type", "set", "get", "del",
    "zrem", "zcard", "zcount", "hgetall",
}  # fmt: skip
OF_PEOPLE = {"cancel", "dead_retry", "purge", "repair", "tidy"}


def users() -> dict[str, list[str]]:
    lines = (ROOT / "config/redis-acl.conf").read_text().splitlines()
    return {words[1]: words[2:] for words in map(str.split, lines) if words[:1] == ["user"]}


def granted(user: str) -> set[str]:
    return {word[1:] for word in users()[user] if word.startswith("+")}


def used_by(*scripts: str) -> set[str]:
    found: set[str] = set()
    for script in scripts:
        text = (SCRIPTS / f"{script}.lua").read_text()
        found |= {name.lower() for name in re.findall(r"redis\.p?call\('([A-Za-z]+)'", text)}
    return found


def of_the_daemon() -> list[str]:
    return sorted({path.stem for path in SCRIPTS.glob("*.lua")} - OF_PEOPLE)


def test_there_are_three_users_who_begin_with_nothing() -> None:
    assert sorted(users()) == ["jobqd-daemon", "jobqd-producer", "jobqd-reader"]
    for words in users().values():
        assert words[0] == "on"
        assert words.index("resetkeys") < words.index("resetchannels") < words.index("-@all")
        assert not [word for word in words if word.startswith(("+@", "allk", "allc", "nopass", ">")) or word == "~*"]


def test_every_command_of_a_script_is_named_outright() -> None:
    for path in SCRIPTS.glob("*.lua"):
        calls = re.findall(r"redis\.p?call\((.)", path.read_text())
        assert set(calls) == {"'"}, f"{path.name}: a computed command cannot be compared with the ACL"


@pytest.mark.parametrize(
    ("user", "needed"),
    [
        ("jobqd-producer", CONNECTING | EVALUATING | FOLLOWING | used_by("enqueue")),
        ("jobqd-daemon", CONNECTING | EVALUATING | SERVING | READING | used_by(*of_the_daemon(), *OF_PEOPLE)),
        ("jobqd-reader", CONNECTING | READING),
    ],
)
def test_a_user_may_do_what_it_does_and_no_more(user: str, needed: set[str]) -> None:
    assert granted(user) == needed


def test_what_cancelling_needs_is_told() -> None:
    text = (ROOT / "config/redis-acl.conf").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("# To let it cancel")]
    told = {word[1:] for word in line.split() if word.startswith("+")}
    assert told == used_by("cancel") - granted("jobqd-producer")
