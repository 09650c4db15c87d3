"""How the demonstration drives ffmpeg: the command, and its progress in percent and remaining seconds."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

from jobqd import Fail

_DURATION = re.compile(r"\s*Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_RATE = re.compile(r"\s*Stream #\S+.*Video:.*?([\d.]+) fps")
_SPEED = re.compile(r"\s*([0-9.]+)x")


def ffmpeg() -> str:
    """Return the path of ffmpeg: that of the `demo` extra, else from PATH. Raises Fail if there is none."""
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - an extra

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        path = shutil.which("ffmpeg")
    if path is None:
        raise Fail('there is no ffmpeg: pip install "jobqd[demo]", or apt install ffmpeg, then retry this job')
    return path


def target_file(job_id: str, suffix: str) -> Path:
    """Return where the result of a job goes: in the directory JOBQD_DEMO_DIR, or ./var/films.

    The id comes from whoever wrote the job, so it is made harmless as a file name.
    """
    folder = Path(os.environ.get("JOBQD_DEMO_DIR", "var/films")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{quote(job_id, safe='')[:100]}{suffix}"


def check(source: str, width: int, seconds: float) -> None:
    """Raise Fail for wishes that no retry can fulfil."""
    if source and not Path(source).is_file():
        raise Fail(f'source "{source}": there is no such file; give a path that the daemon can read')
    if not 16 <= width <= 3840:
        raise Fail(f"width {width}: choose 16 to 3840 pixels")
    if not 0.1 <= seconds <= 3600:
        raise Fail(f"seconds {seconds}: choose 0.1 to 3600")


def picture_and_sound(source: str, width: int, seconds: float) -> list[str]:
    """Return ffmpeg's input options: the source scaled, or without one a flight into the Mandelbrot set."""
    even = width - width % 2  # H.264 knows only even numbers
    if source:
        return ["-i", str(Path(source).absolute()), "-vf", f"scale={even}:-2"]
    picture = f"mandelbrot=size={even}x{max(even * 9 // 32, 8) * 2}:rate=25"
    sound = "sine=frequency=220:beep_factor=4"
    return ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-t", f"{seconds}"]


def film_command(source: str, width: int, seconds: float, target: Path) -> list[str]:
    """Return the command that makes an MP4 (H.264, AAC) and reports its progress on stdout."""
    return [
        *(
            ffmpeg(),
            "-nostdin",
            "-hide_banner",
            "-nostats",
            "-progress",
            "pipe:1",
            "-stats_period",
            "0.2",
            "-y",
        ),
        *picture_and_sound(source, width, seconds),
        *("-c:v", "libx264", "-preset", "veryslow", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *("-movflags", "+faststart", str(target)),
    ]


def frame_command(source: str, width: int, target: Path) -> list[str]:
    """Return the command that writes one frame as a JPEG."""
    return [
        ffmpeg(),
        "-nostdin",
        "-y",
        *picture_and_sound(source, width, 1),
        "-frames:v",
        "1",
        "-an",
        str(target),
    ]


class Meter:
    """Reads what ffmpeg writes with -progress, and learns the length of the film from its banner."""

    def __init__(self, seconds: float | None = None) -> None:
        self.length = seconds
        """Seconds of film in all; None until ffmpeg has said it."""
        self.done = 0.0
        """Seconds of film encoded."""
        self._rate = 0.0
        self.speed = 0.0
        """Seconds of film encoded in each second."""

    def read(self, line: str) -> bool:
        """Take one line; true when a report is complete, so that it is worth being passed on."""
        if self.length is None and (duration := _DURATION.match(line)):
            hours, minutes, seconds = map(float, duration.groups())
            self.length = hours * 3600 + minutes * 60 + seconds
        if not self._rate and (rate := _RATE.match(line)):
            self._rate = float(rate.group(1))
        name, _, value = line.partition("=")
        if self._rate:
            self._read_frames(name, value)
        elif name == "out_time_us" and value.isdecimal():
            self.done = int(value) / 1e6
        elif name == "speed" and (speed := _SPEED.match(value)):
            self.speed = float(speed.group(1))
        return name == "progress"

    def _read_frames(self, name: str, value: str) -> None:
        """Go by pictures where their rate is known: sound is encoded well ahead of them."""
        try:
            amount = float(value)
        except ValueError:
            return
        if name == "frame":
            self.done = max(self.done, amount / self._rate)
        elif name == "fps":
            self.speed = amount / self._rate

    @property
    def percent(self) -> float:
        """How much of the film is encoded, 0 to 100; 0 while its length is unknown."""
        return min(100.0, 100 * self.done / self.length) if self.length else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until it is done at this speed, None while that cannot be told."""
        if not self.length or not self.speed:
            return None
        return max(0.0, self.length - self.done) / self.speed
