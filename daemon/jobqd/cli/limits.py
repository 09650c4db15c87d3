"""`jobq stats` as a check for cron and Nagios: which limit the queue has passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from jobqd.cli.documents import dumps, stats_document
from jobqd.cli.session import Site, open_queue
from jobqd.cli.text import answer, count, line, short
from jobqd.errors import PayloadError
from jobqd.store import counting
from jobqd.store.counting import Stats
from jobqd.units import parse_duration


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What is not to be passed; None: whatever. `max_age` is in seconds."""

    max_age: float | None = None
    max_ready: int | None = None
    max_dead: int | None = None
    min_daemons: int | None = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return any(value is not None for value in asdict(self).values())


def queue_limits(
    max_age: str | None, max_ready: int | None, max_dead: int | None, min_daemons: int | None
) -> QueueLimits:
    """Return the limits that options name. Raises PayloadError for a duration that is none."""
    try:
        seconds = None if max_age is None else parse_duration(max_age)
    except ValueError as error:
        raise PayloadError(f"--max-age: {error}") from None
    return QueueLimits(seconds, max_ready, max_dead, min_daemons)


def oldest(stats: Stats) -> float | None:
    """Return for how long, in seconds, the oldest job has waited that might run; None where nothing tells.

    Jobs that no running daemon has a handler for count too. Those at the cap of their type do not: it is their turn
    that they wait for.
    """
    handled = {f"type:{name}" for daemon in stats.daemons for name in daemon.types}
    waits = [wait for reason, wait in stats.held_oldest.items() if reason.startswith("type:") and reason not in handled]
    found = [wait for wait in (stats.oldest, *waits) if wait is not None]
    return max(found, default=None if stats.ready else 0.0)


def passed(stats: Stats, limits: QueueLimits) -> list[str]:
    """Return a few words for each limit that is passed."""
    return list(_passed(stats, limits))


def _passed(stats: Stats, limits: QueueLimits) -> Iterator[str]:
    waited, daemons = oldest(stats), len(stats.daemons)
    if limits.max_age is not None and waited is not None and waited > limits.max_age:
        yield f"oldest waits {short(waited)}, more than {short(limits.max_age)}"
    if limits.max_ready is not None and stats.ready > limits.max_ready:
        yield f"ready {count(stats.ready)}, more than {count(limits.max_ready)}"
    if limits.max_dead is not None and stats.dead > limits.max_dead:
        yield f"dead {count(stats.dead)}, more than {count(limits.max_dead)}"
    if limits.min_daemons is not None and daemons < limits.min_daemons:
        yield f"daemons {count(daemons)}, fewer than {count(limits.min_daemons)}"


def check_line(stats: Stats, limits: QueueLimits, queue: str) -> str:
    """Return one line as a Nagios plugin writes it: what is wrong, or how things are, then the figures.

    Source: https://www.monitoring-plugins.org/doc/guidelines.html (plugin output, performance data). 1, with which
    `jobq` says no, is WARNING there.
    """
    wrong = "; ".join(passed(stats, limits))
    waited = oldest(stats)
    told = "unknown" if waited is None else short(waited)
    well = f"ready {count(stats.ready)}, oldest waits {told}, dead {count(stats.dead)}, daemons {len(stats.daemons)}"
    state = "WARNING" if wrong else "OK"
    # What follows the first | is read by programs.
    name = line(queue).replace("|", "/")
    return f"JOBQ {state} - {name}: {wrong or well} | {' '.join(_figures(stats, limits, waited))}"


def _figures(stats: Stats, limits: QueueLimits, waited: float | None) -> Iterator[str]:
    yield _figure("ready", stats.ready, limits.max_ready)
    if waited is not None:
        yield _figure("oldest", f"{waited:.0f}s", None if limits.max_age is None else f"{limits.max_age:g}")
    yield _figure("dead", stats.dead, limits.max_dead)
    yield _figure("daemons", len(stats.daemons), None if limits.min_daemons is None else f"{limits.min_daemons}:")


def _figure(name: str, value: float | str, limit: float | str | None) -> str:
    return f"{name}={value}" if limit is None else f"{name}={value};{limit}"


def check(site: Site, limits: QueueLimits, *, quiet: bool, as_json: bool) -> int:
    """Compare the queue with limits; 1 if one is passed. With `quiet` nothing is said while none is."""
    with open_queue(site) as queue:
        stats = queue.run(counting.stats(queue.keys))
    wrong = passed(stats, limits)
    if as_json:
        found = {"limits": asdict(limits), "passed": wrong, "oldest_runnable": oldest(stats)}
        answer(dumps({**stats_document(stats), **found}))
    elif wrong or not quiet:
        answer(check_line(stats, limits, queue.keys.ready))
    return 1 if wrong else 0
