"""Jobs whose ids a raw producer chose: whatever they are, people can act on them."""

from __future__ import annotations

import json

import pytest

from jobqd import PayloadError, SyncQueue

# ruff: noqa: F811 - the fixtures of another module
from tests.integration.test_jobq import Jobq, jobq, redis_server  # noqa: F401

IDS = {
    "escape": b"\x1b[31mX\n", "not UTF-8": b"\xff\xfe", "NUL": b"a\x00b", "backslashes": b"C:\\new\\x41",
    "long": b"x" * 1000, "spaces": b"a  b",
}  # fmt: skip


async def put(raw, keys, name: bytes, **more: str) -> None:
    prefix = keys.prefix.encode()
    await raw.hset(prefix + b"job:" + name, mapping={"type": "film", "status": "queued", **more})


@pytest.mark.parametrize("name", list(IDS))
async def test_what_is_shown_can_be_given_back(jobq: Jobq, raw, keys, name: str) -> None:
    await put(raw, keys, IDS[name], _due_at="1")
    await raw.zadd(keys.ready, {IDS[name]: 1})
    shown = jobq("list").stdout.splitlines()[1].partition("  queued")[0].rstrip()
    page = jobq("show", shown)
    assert page.returncode == 0, page.stderr
    assert page.stdout.splitlines()[0].split(maxsplit=1) == ["id", shown]
    assert jobq("cancel", shown).stdout == f"{shown}  cancelled before it ran\n"
    assert jobq("watch", shown).stdout.startswith(f"{shown}  cancelled")
    assert await raw.hget(keys.prefix.encode() + b"job:" + IDS[name], "status") == "cancelled"


@pytest.mark.parametrize("name", list(IDS))
async def test_a_dead_letter_of_any_id_can_be_retried_and_purged(jobq: Jobq, raw, keys, name: str) -> None:
    await put(raw, keys, IDS[name], status="failed", finished_at="1", error="no")
    await raw.lpush(keys.dead, IDS[name])
    shown = jobq("dead", "list").stdout.splitlines()[1].partition("  failed")[0].rstrip()
    assert jobq("dead", "show", shown).returncode == 0
    assert jobq("dead", "purge", shown).stdout == f"{shown}  would be deleted\n"
    retried = jobq("dead", "retry", shown)
    assert (retried.returncode, retried.stdout) == (0, f"{shown}  back in the queue\n"), retried.stderr


async def test_a_client_acts_on_any_id_and_enqueues_only_good_ones(redis_server, raw, keys) -> None:
    job_id = "\x1b\udcff"
    await put(raw, keys, b"\x1b\xff")
    await raw.zadd(keys.ready, {b"\x1b\xff": 1})
    with SyncQueue.from_url(redis_server.url, key_prefix=keys.prefix) as queue:
        assert queue.job(job_id).status() == "queued"
        assert queue.cancel([job_id]) == {job_id: "removed"}
        assert queue.retry_dead([job_id]) == {job_id: "cancelled"}
        with pytest.raises(PayloadError, match="control character"):
            queue.enqueue("film", id=job_id)
        for nothing in ("", 7, "\ud800"):
            with pytest.raises(PayloadError, match="id: "):
                queue.job(nothing)


async def test_json_names_the_id_itself(jobq: Jobq, raw, keys) -> None:
    await put(raw, keys, IDS["escape"])
    await raw.zadd(keys.ready, {IDS["escape"]: 1})
    assert json.loads(jobq("show", "\\x1b[31mX\\n", "--json").stdout)["id"] == "\x1b[31mX\n"
