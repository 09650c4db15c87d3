"""The line that `systemctl status` shows."""

from __future__ import annotations

import redis.asyncio

from jobqd.duties.report import Reporter
from jobqd.duties.status import EVERY, Presence, QueueSize, StatusLine, Work
from jobqd.handlers import Handlers
from jobqd.keys import Keys
from jobqd.logs import RunLog
from jobqd.store import Link, Target
from tests.support.assembled import assembled
from tests.support.clock import ManualClock
from tests.support.log import RecordingLog


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)


class Board:
    def __init__(self, link: Link, keys: Keys) -> None:
        self.clock, self.told, self.log = ManualClock(), Told(), RecordingLog()
        self.presence = Presence("default", 32, ("mail",), 0.0)
        self.work, self.trouble = Work(0, 0), list[str]()
        run_log = RunLog(self.log, self.clock)
        self.line = StatusLine(
            QueueSize(link, keys), self.presence, self.told,  # type: ignore[arg-type]
            Reporter(run_log, run_log, Handlers()), self.clock, work=lambda: self.work, trouble=lambda: self.trouble,
        )  # fmt: skip

    async def turn(self) -> str:
        self.clock.advance(5.0)
        assert await self.line.run_once() == EVERY
        return self.told.lines[-1]


async def test_it_tells_workers_jobs_and_their_rate(link: Link, keys: Keys, raw: redis.asyncio.Redis) -> None:
    board = Board(link, keys)
    assert await board.turn() == "32 workers, 0 running, 0 ready, 0 dead, 0/s"
    await raw.zadd(keys.ready, {f"j{n}": 10 for n in range(104)})
    await raw.lpush(keys.dead, "a", "b", "c")
    board.work = Work(12, 4060)
    assert await board.turn() == "32 workers, 12 running, 104 ready, 3 dead, 812/s"
    board.work = Work(12, 4063)
    assert "0.6/s" in await board.turn()


async def test_it_is_told_only_when_it_changes(link: Link, keys: Keys) -> None:
    board = Board(link, keys)
    for _ in range(3):
        await board.turn()
    assert len(board.told.lines) == 1


async def test_what_is_wrong_follows_and_a_stop_has_its_own_line(link: Link, keys: Keys) -> None:
    board = Board(link, keys)
    board.presence.status = "quiet"
    board.trouble = ["polling, for Redis refuses CLIENT TRACKING"]
    assert (await board.turn()).endswith("0/s; quiet; polling, for Redis refuses CLIENT TRACKING")
    board.presence.status = "draining"
    await board.turn()
    assert len(board.told.lines) == 1


async def test_without_redis_it_is_told_without_its_counts() -> None:
    link = Link(Target("unix:///nowhere.sock"))
    assert await Board(link, Keys()).turn() == "32 workers, 0 running, 0/s"


async def test_the_daemon_names_its_troubles(target: Target, keys: Keys) -> None:
    async with assembled(target, keys, Handlers()) as parts:
        assert parts._trouble() == []
        parts.metrics_problem = lambda: "address in use"
        parts.wakeup.link.refused = "NOPERM"
        assert parts._trouble() == [
            "polling, for Redis refuses CLIENT TRACKING", "metrics not served: address in use",
        ]  # fmt: skip
