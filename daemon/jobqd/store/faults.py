"""What an error of Redis means, in one table.

Redis 6.2 wraps the error of a command inside a script (`ERR Error running script … -READONLY …`), so the code is
looked for anywhere in the message; redis-py cuts the code off for the errors it has classes for, so the class is
looked at first.
"""

from __future__ import annotations

import re

from redis import exceptions as redis_errors

from jobqd.errors import StoreError, StoreFault

_BY_CODE = {
    "LOADING": StoreFault.DOWN,
    "READONLY": StoreFault.READONLY,
    "MASTERDOWN": StoreFault.READONLY,
    "UNBLOCKED": StoreFault.READONLY,
    "MOVED": StoreFault.READONLY,
    "OOM": StoreFault.FULL,
    "MISCONF": StoreFault.DISK,
    "NOREPLICAS": StoreFault.DISK,
    "BUSY": StoreFault.BUSY,
    "TRYAGAIN": StoreFault.BUSY,
    "CLUSTERDOWN": StoreFault.BUSY,
    "NOAUTH": StoreFault.DENIED,
    "WRONGPASS": StoreFault.DENIED,
    "NOPERM": StoreFault.DENIED,
    "WRONGTYPE": StoreFault.WRONGTYPE,
}
_BY_CLASS: tuple[tuple[type[Exception], StoreFault], ...] = (
    (redis_errors.AuthenticationError, StoreFault.DENIED),
    (redis_errors.NoPermissionError, StoreFault.DENIED),
    (redis_errors.ReadOnlyError, StoreFault.READONLY),
    (redis_errors.MasterDownError, StoreFault.READONLY),
    (redis_errors.AskError, StoreFault.READONLY),
    (redis_errors.ClusterDownError, StoreFault.BUSY),
    (redis_errors.TryAgainError, StoreFault.BUSY),
    (redis_errors.OutOfMemoryError, StoreFault.FULL),
    (redis_errors.ConnectionError, StoreFault.DOWN),
    (redis_errors.TimeoutError, StoreFault.DOWN),
    (OSError, StoreFault.DOWN),
)
_CODE = re.compile(r"(?<![A-Za-z])-?([A-Z]{3,})(?![A-Za-z])")
MAX_CLIENTS = "max number of clients reached"

RAISED: tuple[type[Exception], ...] = (redis_errors.RedisError, redis_errors.RedisClusterException, OSError)
"""Everything that a command can raise; `CrossSlot` and the cluster's errors are not `RedisError`."""


def no_script(error: Exception) -> bool:
    """Whether the server does not know a script's SHA-1: nothing was executed."""
    return isinstance(error, redis_errors.NoScriptError)


def refusal(error: Exception) -> bool:
    """Whether the server answered: the connection is in step and may be used again."""
    return isinstance(error, redis_errors.ResponseError) and MAX_CLIENTS not in str(error)


def fault_of(error: Exception) -> StoreFault:
    """Return what an exception of redis-py or the system means."""
    text, cause = str(error), error.__cause__
    if isinstance(error, redis_errors.ConnectionError) and isinstance(cause, redis_errors.RedisError):
        # redis.asyncio wraps whatever fails while it connects, a wrong password too.
        return fault_of(cause)
    for kind, fault in _BY_CLASS:
        if isinstance(error, kind):
            return fault
    for match in _CODE.finditer(text):
        fault_by_code = _BY_CODE.get(match.group(1))
        if fault_by_code is not None:
            return fault_by_code
    return StoreFault.DOWN if MAX_CLIENTS in text else StoreFault.OTHER


def store_error(error: Exception) -> StoreError:
    """Return the StoreError for an exception of redis-py or the system."""
    text = str(error) or type(error).__name__
    return StoreError(fault_of(error), text if len(text) <= 500 else text[:499] + "…")
