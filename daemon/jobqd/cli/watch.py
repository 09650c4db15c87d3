"""`jobq watch`: jobs followed to their ends, as live bars, as lines, or as JSON lines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from jobqd.cli.documents import dumps, job_document, update_document
from jobqd.cli.render import progress_words, status_word, summary
from jobqd.cli.session import RETRY_FOR, Site, explain
from jobqd.cli.text import Paper, answer, line, short, shown_id
from jobqd.client.queue import JobHandle, Queue
from jobqd.errors import JobNotFound, StoreError
from jobqd.store import facts
from jobqd.store.facts import JobInfo

_STATUS_STYLES = {
    "completed": "green", "failed": "red", "cancelled": "bright_black", "retrying": "yellow", "processing": "blue",
}  # fmt: skip


class View(Protocol):
    """Where the course of the watched jobs is shown."""

    def change(self, job_id: str, progress: facts.Progress, job: JobInfo | None) -> None:
        """Show a job's progress; `job` is there where it waits, to tell why."""

    def end(self, job_id: str, job: JobInfo | None) -> None:
        """Show how a job ended; None: there is no such job."""


def watch(site: Site, ids: Sequence[str], *, as_json: bool) -> int:
    """Follow jobs until all have ended; 0 if all completed, 1 if not, 130 when interrupted."""
    loaded = site.load()
    paper = Paper.of(sys.stdout)

    async def follow(view: View) -> bool:
        async with Queue.from_settings(loaded.settings, retry_for=RETRY_FOR) as queue:
            handles = [queue.job(job_id) for job_id in dict.fromkeys(ids)]
            return all(await asyncio.gather(*(_follow(handle, view) for handle in handles)))

    try:
        if as_json:
            done = asyncio.run(follow(_JsonLines()))
        elif paper.width is None:
            done = asyncio.run(follow(_Lines(paper)))
        else:
            with _bars(paper) as progress:
                done = asyncio.run(follow(_Bars(progress, paper, alone=len(set(ids)) == 1)))
    except StoreError as error:
        explain(error, loaded)
    except KeyboardInterrupt:
        return 130
    return 0 if done else 1


async def _follow(handle: JobHandle, view: View) -> bool:
    try:
        async for progress in handle.updates():
            if not progress.ended:
                view.change(handle.id, progress, None if progress.status == "processing" else await handle.info())
        job = await handle.info()
    except JobNotFound:
        view.end(handle.id, None)
        return False
    view.end(handle.id, job)
    return job.status == "completed"


class _JsonLines:
    """One JSON document a line: each change, and at last the whole job."""

    def change(self, job_id: str, progress: facts.Progress, job: JobInfo | None) -> None:
        answer(dumps(update_document(job_id, progress), lines=True))

    def end(self, job_id: str, job: JobInfo | None) -> None:
        document = {"id": job_id, "status": None, "error": "not found"} if job is None else job_document(job)
        answer(dumps(document, lines=True))


class _Lines:
    """One line for each change, for files and pipes."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper

    def change(self, job_id: str, progress: facts.Progress, job: JobInfo | None) -> None:
        waits = job is not None and job.status == progress.status
        told = _waiting(job) if job is not None and waits else (line(progress.status), progress_words(progress))
        answer("  ".join((shown_id(job_id), *told)).rstrip())

    def end(self, job_id: str, job: JobInfo | None) -> None:
        told = "not found" if job is None else f"{line(status_word(job))}  {summary(job)}"
        answer(f"{shown_id(job_id)}  {told}".rstrip())


def _waiting(job: JobInfo) -> tuple[str, str]:
    return line(status_word(job)), summary(job)


def _bars(paper: Paper) -> Progress:
    colours = None if paper.colour else "auto"
    console = Console(no_color=not paper.colour, color_system="auto" if colours is None else None, highlight=False)
    return Progress(
        TextColumn("{task.fields[name]}"),
        BarColumn(bar_width=max(10, min(40, (paper.width or 80) - 62))),
        TextColumn("{task.fields[percent]:>4}"),
        TextColumn("{task.fields[told]}"),
        console=console,
        refresh_per_second=8,
    )


class _Bars:
    """One live bar a job."""

    def __init__(self, progress: Progress, paper: Paper, *, alone: bool) -> None:
        self._progress = progress
        self._alone = alone
        self._room = max(20, (paper.width or 80) - 44)
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()

    def change(self, job_id: str, progress: facts.Progress, job: JobInfo | None) -> None:
        done = progress.percent
        waits = job is not None and job.status == progress.status
        words = list(_waiting(job)) if job is not None and waits else [line(progress.step or "") or progress.status]
        if progress.eta_seconds is not None:
            words.append(f"{short(progress.eta_seconds)} left")
        told = escape(", ".join(words)[: self._room])
        self._show(job_id, done or 0.0, "" if done is None else f"{done:.0f}%", told, progress.status)

    def end(self, job_id: str, job: JobInfo | None) -> None:
        if job is None:
            return self._show(job_id, 0.0, "", "not found", "failed")
        done = 100.0 if job.status == "completed" else job.progress.percent or 0.0
        percent = f"{done:.0f}%" if job.status == "completed" or job.progress.percent is not None else ""
        told = escape(f"{status_word(job)}, {summary(job)}"[: self._room])
        return self._show(job_id, done, percent, told, job.status)

    def _show(self, job_id: str, done: float, percent: str, told: str, status: str) -> None:
        style = _STATUS_STYLES.get(status, "cyan")
        text = f"[{style}]{told}[/{style}]"
        if job_id not in self._tasks:
            shown = shown_id(job_id)
            name = escape(shown if len(shown) <= 14 else f"…{shown[-12:]}")
            self._tasks[job_id] = self._progress.add_task("", total=100, name=name, percent=percent, told=text)
        self._progress.update(self._tasks[job_id], completed=done, percent=percent, told=text)
