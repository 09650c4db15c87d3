"""Before the first job: Redis is waited for, judged, and asked whether this prefix belongs to this queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobqd.clock import Clock
from jobqd.duties.outage import Outage
from jobqd.errors import ConfigError, StoreError, StoreFault
from jobqd.keys import Keys, Seat
from jobqd.store import Link, running

_OLDEST = (6, 2)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: fine (True), wrong (False), or to be thought about (None)."""

    ok: bool | None
    subject: str
    message: str


async def redis_info(link: Link) -> dict[str, str]:
    """Return what INFO says that we judge by, empty if the server refuses INFO. Raises StoreError."""
    try:
        texts = [await link.command("INFO", section) for section in ("server", "memory", "persistence")]
    except StoreError as error:
        if error.fault in (StoreFault.DENIED, StoreFault.OTHER):
            return {}
        raise
    lines = (line for text in texts for line in str(text).splitlines())
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


async def wait_for_redis(link: Link, outage: Outage, clock: Clock) -> dict[str, str]:
    """Return what Redis says of itself as soon as it answers. May be cancelled at any moment: it changes nothing.

    A wrong password or a server that is loading may be put right: every error is waited out.
    """
    while True:
        try:
            await link.command("PING")
            info = await redis_info(link)
        except StoreError as error:
            await clock.sleep(outage.failed("start", error))
        else:
            outage.succeeded("start")
            return info


def judge(info: Mapping[str, str], *, allow_eviction: bool) -> list[Finding]:
    """Return what has to be said of a Redis, by its INFO: its version, its eviction policy, its persistence."""
    if not info:
        return [Finding(None, "redis", "it refuses INFO, so its version, eviction and persistence are not known")]
    return [_version(info), judge_eviction(info, allowed=allow_eviction), _persistence(info)]


def _version(info: Mapping[str, str]) -> Finding:
    text = info.get("redis_version", "0")
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        return Finding(False, "version", f"Redis {text} is too old: jobqd needs 6.2 or later")
    return Finding(True, "version", f"Redis {text}")


def judge_eviction(info: Mapping[str, str], *, allowed: bool) -> Finding:
    """Return what has to be said of the eviction policy, by `INFO memory`; `allowed` is the setting allow_eviction.

    Source: Redis documentation, "Key eviction": a policy counts only where `maxmemory` is set.
    """
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", "0")
    if limit == "0" or policy == "noeviction":
        return Finding(True, "eviction", f"{policy}, maxmemory {limit}: nothing is evicted")
    if policy.startswith("allkeys"):
        wrong = f"maxmemory-policy is {policy}: when Redis is full it evicts jobs that nobody has run"
        if allowed:
            return Finding(None, "eviction", f"{wrong}; allowed by allow_eviction")
        return Finding(
            False, "eviction",
            f"{wrong}; set it to noeviction, or use a Redis of its own, or accept the loss: allow_eviction = true",
        )  # fmt: skip
    return Finding(
        None,
        "eviction",
        f"maxmemory-policy is {policy}: when Redis is full, results of ended jobs vanish early",
    )


def _persistence(info: Mapping[str, str]) -> Finding:
    if info.get("aof_enabled") == "0":
        return Finding(
            None, "persistence", "appendonly is off: a crash of Redis loses the jobs since its last snapshot"
        )
    return Finding(True, "persistence", "append-only file on")


async def try_scripts(link: Link, keys: Keys) -> Finding:
    """Run a script that changes nothing: a renewal of no lease, by nobody. Raises StoreError if Redis is away."""
    try:
        await link.run(running.beat(Seat(keys, "check", 0.0), {}, []))
    except StoreError as error:
        if error.fault in (StoreFault.DOWN, StoreFault.TLS):
            raise
        return Finding(False, "scripts", f"the daemon's scripts cannot run: {error}")
    return Finding(True, "scripts", "EVALSHA and EVAL are allowed")


def wakeup(refused: str | None) -> Finding:
    """Return how the daemon will hear of new jobs; `refused` is why the server does not tell."""
    if refused is None:
        return Finding(True, "wake-up", "by CLIENT TRACKING: a new job is heard of at once")
    return Finding(None, "wake-up", f"by polling, four times a second, since CLIENT TRACKING is refused: {refused}")


async def claim_prefix(link: Link, keys: Keys) -> None:
    """Make sure that one prefix holds one queue: job hashes carry no queue name. Raises ConfigError, StoreError."""
    held_by = await link.command("GET", keys.registered)
    if held_by is None:
        try:
            await link.command("SET", keys.registered, keys.ready, "NX")
        except StoreError as error:
            if error.fault is StoreFault.FULL:
                return  # what frees memory must start: the next start registers
            raise
        held_by = await link.command("GET", keys.registered)
    if held_by != keys.ready:
        raise ConfigError(
            f"queue: the prefix {keys.prefix!r} belongs to the queue {held_by!r} already, and one prefix holds one "
            f"queue; give this one its own key_prefix (or, if the other is no longer used: DEL {keys.registered})"
        )
