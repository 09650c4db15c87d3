"""The jobs that the demonstration begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqd import Queue


async def enqueue_samples(queue: Queue) -> None:
    """Enqueue a handful of jobs; the lower the priority's number, the sooner a job runs.

    Two films run at a time. The third one waits, and nobody waits behind it: mails and the others pass.
    """
    for width, seconds in ((640, 6), (960, 6), (640, 12)):
        await queue.enqueue("video_render", {"width": width, "seconds": seconds}, priority=10)
    for name in ("ada", "grace", "linus"):
        await queue.enqueue("send_mail", {"to": f"{name}@example.org", "subject": "Your film"}, priority=5)
    await queue.enqueue("thumbnail", {"width": 320}, priority=20)
    await queue.enqueue("report", {"pages": 20}, priority=20)
    await queue.enqueue("flaky", priority=30)
    await queue.enqueue("broken", {"customer": 4711}, priority=30)
