from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from jobqd.drive import drive
from tests.support.log import RecordingLog


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = request.param()
    yield loop
    loop.close()


async def raising(error: BaseException) -> None:
    raise error


def driven(loop: asyncio.AbstractEventLoop, before: Callable[[], Any], error: BaseException | None = None) -> Any:
    log = RecordingLog()

    async def main() -> str:
        before()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return "done"

    return drive(loop, loop.create_task(main()), log), log.of("loop.exit_refused")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_beside_that_exits_is_refused(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    result, told = driven(loop, lambda: loop.create_task(raising(error)))
    assert (result, told) == ("done", [{"problem": f"raised {error!r}", "exc_info": True}])


def test_a_stop_of_the_loop_is_refused(loop: asyncio.AbstractEventLoop) -> None:
    assert driven(loop, loop.stop) == ("done", [{"problem": "stopped the event loop"}])


@pytest.mark.parametrize("error", [SystemExit(3), RuntimeError("mine"), asyncio.CancelledError()])
def test_what_the_task_itself_raises_is_its_end(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    with pytest.raises(type(error)):
        driven(loop, lambda: None, error)


def test_a_closed_loop_is_not_driven_on(loop: asyncio.AbstractEventLoop) -> None:
    never: asyncio.Future[None] = loop.create_future()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        drive(loop, never, RecordingLog())
