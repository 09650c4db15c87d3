"""The demonstration: its handlers are run for real, ffmpeg included."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jobqd.demo import films, handlers
from jobqd.demo.jobs import broken, flaky, report, send_mail, thumbnail, video_render
from jobqd.demo.samples import enqueue_samples
from jobqd.errors import Fail, Retry, Snooze
from jobqd.guardian import Guardian
from jobqd.job import Claimed, Job, SyncJob
from jobqd.programs import Program, ProgramOptions

CONFIG = Path(__file__).parents[2] / "config" / "demo.toml"


class Port:
    """What a run asks of the daemon, kept for the test to look at."""

    log, max_attempts, state, ended = None, 5, None, None

    def __init__(self) -> None:
        self.guardian = Guardian()
        self.reports: list[tuple[float, str | None, float | None]] = []
        self.reported = asyncio.Event()
        self.checkpoints: list[str] = []

    def progress(self, percent: float, step: str | None, eta_seconds: float | None) -> bool:
        self.reports.append((percent, step, eta_seconds))
        self.reported.set()
        return False

    async def save_checkpoint(self, text: str) -> None:
        self.checkpoints.append(text)

    def program(self, argv: tuple[str, ...], options: ProgramOptions) -> Program:
        return Program(argv, options, self.guardian)


def claimed(job_id: str = "job-1", **fields: str) -> Claimed:
    return Claimed(job_id, 1, 10.0, 0.0, fields)


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    monkeypatch.setenv("JOBQD_DEMO_DIR", str(tmp_path / "films"))
    port = Port()
    yield port
    port.guardian.close()


@pytest.fixture
def job(port: Port) -> Callable[..., Job]:
    return lambda *args, **fields: Job(claimed(*args, **fields), port, asyncio.Event())


@pytest.fixture
def with_ffmpeg() -> None:
    try:
        films.ffmpeg()
    except Fail as reason:
        pytest.skip(str(reason))


@pytest.mark.usefixtures("with_ffmpeg")
async def test_a_film_is_rendered_then_transcoded(port: Port, job: Callable[..., Job], tmp_path: Path) -> None:
    result = await video_render(job("first"), width=161, seconds=1)
    film = Path(result["file"])
    assert film.read_bytes()[4:8] == b"ftyp"
    assert result == {"file": str(tmp_path / "films/first.mp4"), "seconds": pytest.approx(1, abs=0.2),
                      "size": film.stat().st_size}  # fmt: skip
    assert port.reports[-1][0] == pytest.approx(100, abs=20)
    assert {step for _, step, _ in port.reports} == {"encoding"}

    port.reports.clear()
    result = await video_render(job("../second"), source=str(film), width=80)
    assert Path(result["file"]).parent == tmp_path / "films"
    assert port.reports[-1][0] == pytest.approx(100, abs=20)
    assert sorted(path.suffixes[-2:] for path in film.parent.iterdir()) == [[".mp4"], [".mp4"]]


@pytest.mark.usefixtures("with_ffmpeg")
async def test_an_unreadable_source_leaves_nothing(job: Callable[..., Job], tmp_path: Path) -> None:
    source = tmp_path / "text.mp4"
    source.write_text("no film")
    with pytest.raises(Exception, match="Invalid data found"):
        await video_render(job(), source=str(source))
    assert list((tmp_path / "films").iterdir()) == []


@pytest.mark.usefixtures("with_ffmpeg")
async def test_a_film_that_is_cancelled_leaves_nothing(port: Port, job: Callable[..., Job], tmp_path: Path) -> None:
    rendering = asyncio.create_task(video_render(job(), seconds=3600))
    await port.reported.wait()
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["job-1.part.mp4"]
    rendering.cancel()
    await asyncio.wait([rendering])
    assert rendering.cancelled()
    assert list((tmp_path / "films").iterdir()) == []


@pytest.mark.usefixtures("with_ffmpeg")
async def test_a_picture_from_a_thread(port: Port) -> None:
    loop = asyncio.get_running_loop()
    result = await asyncio.to_thread(thumbnail, SyncJob(claimed(), port, None, loop), width=64)
    assert Path(result["file"]).read_bytes()[:3] == b"\xff\xd8\xff"


async def test_wishes_that_cannot_be_fulfilled_fail_for_good(job: Callable[..., Job]) -> None:
    for wish, message in (
        ({"source": "/no/such.mp4"}, 'source "/no/such.mp4": there is no such file'),
        ({"width": 8}, "width 8: choose 16 to 3840"),
        ({"seconds": float("nan")}, "seconds nan: choose"),
    ):
        with pytest.raises(Fail, match=message):
            await video_render(job(), **wish)


def test_no_ffmpeg_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such")
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(Fail, match=r'pip install "jobqd\[demo\]", or apt install ffmpeg'):
        films.ffmpeg()


def test_the_meter_reads_ffmpeg() -> None:
    meter = films.Meter()
    lines = ["  Duration: 00:01:40.50, start: 0.0", "frame=100", "out_time_us=N/A", "speed=N/A"]
    assert not any(map(meter.read, lines))
    assert (meter.length, meter.percent, meter.eta_seconds) == (100.5, 0.0, None)
    assert not meter.read("out_time_us=25125000")
    assert not meter.read("speed= 1.5x")
    assert meter.read("progress=continue")
    assert (meter.percent, meter.eta_seconds) == (25.0, pytest.approx(75.375 / 1.5))
    meter.read("out_time_us=200000000")
    assert (meter.percent, meter.eta_seconds) == (100.0, 0.0)


async def test_flaky_fails_twice(job: Callable[..., Job]) -> None:
    for attempts in ("0", "1"):
        with pytest.raises(Retry):
            await flaky(job(attempts=attempts))
    assert await flaky(job(attempts="2")) == "sunny, at attempt 3"


async def test_broken_fails_always() -> None:
    with pytest.raises(LookupError, match="there is no customer 4711"):
        await broken(customer=4711)


async def test_mail() -> None:
    assert await send_mail(to="a@b", subject="hi") == {"to": "a@b", "subject": "hi"}


async def test_a_report_goes_on_from_its_checkpoint(port: Port, job: Callable[..., Job]) -> None:
    with pytest.raises(Retry):
        await report(job(), pages=4)
    assert port.checkpoints == ['{"page":1}', '{"page":2}']
    result = await report(job(attempts="1", checkpoint=port.checkpoints[-1]), pages=4)
    assert result == {"pages": 4, "continued_from": 2}
    stopping = job()
    stopping.stopping.set()
    with pytest.raises(Snooze):
        await report(stopping, pages=4)


async def test_the_samples_fit_their_handlers() -> None:
    jobs: list[tuple[str, int]] = []

    class Recorder:
        async def enqueue(self, job_type: str, payload: dict[str, Any] | None = None, *, priority: int) -> None:
            handler = handlers.get(job_type)
            assert handler is not None, job_type
            handler.args(**(payload or {}))
            jobs.append((job_type, priority))

    await enqueue_samples(Recorder())  # type: ignore[arg-type]
    assert {job_type for job_type, _ in jobs} == set(handlers.types)
    assert [job_type for job_type, _ in jobs].count("video_render") == 3
    assert max(p for t, p in jobs if t == "send_mail") < min(p for t, p in jobs if t == "video_render")


def test_the_configuration_names_what_there_is() -> None:
    config = tomllib.loads(CONFIG.read_text())
    assert config["handlers"] == "jobqd.demo:handlers"
    assert set(config["jobs"]) <= set(handlers.types)
