"""What an error of Redis means and what is done about it, in one table.

Redis 6.2 wraps the error of a command inside a script (`ERR Error running script … -READONLY …`), so the code is
looked for anywhere in the message; redis-py cuts the code off for the errors it has classes for, so the class is
looked at first.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from redis import exceptions as redis_errors

from jobqd.errors import StoreError, StoreFault


@dataclass(frozen=True, slots=True)
class Reaction:
    """How one kind of fault is known, what it means, and what the daemon does about it.

    Known by a piece of the message, else by the exception's class, else by a code anywhere in the message.
    """

    meaning: str
    """What the log says; where a person has to act, it says what to look at."""
    codes: tuple[str, ...] = ()
    classes: tuple[type[Exception], ...] = ()
    texts: tuple[str, ...] = ()
    at_once: bool = False
    """Whether the first failure in a row is nothing to speak of: tried again without a pause."""
    first_pause: float = 0.05
    longest_pause: float = 2.0
    """Seconds. Pauses between the tries of one part double from the first to the longest, half of each at random."""


MAX_CLIENTS = "max number of clients reached"
# Seconds. A person puts a wrong password right, and until then each try stands in the server's ACL LOG.
_WITH_CARE, _BY_HAND = 0.5, 5.0

# Read from the top: the first row that fits counts. In redis-py a wrong password is a ConnectionError, and MASTERDOWN
# a ClusterDownError.
REACTIONS: Mapping[StoreFault, Reaction] = MappingProxyType({
    StoreFault.DENIED: Reaction(
        "Redis refuses us: check the password and the ACL",
        codes=("NOAUTH", "WRONGPASS", "NOPERM"),
        classes=(redis_errors.AuthenticationError, redis_errors.NoPermissionError),
        # Redis before 7.2 gives no code where the ACL forbids a command inside a script.
        texts=("The user executing the script can't",),
        first_pause=_WITH_CARE,
        longest_pause=_BY_HAND,
    ),
    StoreFault.TLS: Reaction(
        "the connection to Redis cannot be trusted", first_pause=_WITH_CARE, longest_pause=_BY_HAND
    ),
    StoreFault.READONLY: Reaction(
        "this Redis is not the master",
        codes=("READONLY", "MASTERDOWN", "UNBLOCKED", "MOVED"),
        classes=(redis_errors.ReadOnlyError, redis_errors.MasterDownError, redis_errors.AskError),
        at_once=True,
    ),
    StoreFault.BUSY: Reaction(
        "Redis is busy with a script or a fail-over",
        codes=("BUSY", "TRYAGAIN", "CLUSTERDOWN"),
        classes=(redis_errors.ClusterDownError, redis_errors.TryAgainError),
        # A script met a job that a slot on the move has taken along already: wait for the rest.
        texts=("non local key in a cluster node",),
    ),
    StoreFault.FULL: Reaction(
        "Redis is at its memory limit", codes=("OOM",), classes=(redis_errors.OutOfMemoryError,)
    ),
    StoreFault.DISK: Reaction(
        "Redis refuses writes: it cannot persist, or has too few replicas", codes=("MISCONF", "NOREPLICAS")
    ),
    StoreFault.WRONGTYPE: Reaction(
        "a key of the queue holds something else: check key_prefix and queue",
        codes=("WRONGTYPE",),
        longest_pause=_BY_HAND,
    ),
    StoreFault.DOWN: Reaction(
        "Redis does not answer",
        codes=("LOADING",),
        classes=(redis_errors.ConnectionError, redis_errors.TimeoutError, OSError),
        texts=(MAX_CLIENTS,),
        at_once=True,
    ),
    StoreFault.OTHER: Reaction("Redis answered with an error that jobqd does not know", longest_pause=_BY_HAND),
})  # fmt: skip
"""Every answer of Redis that is an error; docs/operations.md shows the same to people."""

_BY_TEXT = {text: fault for fault, reaction in REACTIONS.items() for text in reaction.texts}
_BY_CLASS = tuple((kind, fault) for fault, reaction in REACTIONS.items() for kind in reaction.classes)
_BY_CODE = {code: fault for fault, reaction in REACTIONS.items() for code in reaction.codes}
_CODE = re.compile(r"(?<![A-Za-z])-?([A-Z]{3,})(?![A-Za-z])")
# "Error 111 connecting to HOST:PORT. REASON." and "Error REASON connecting to HOST:PORT.", of redis-py.
_CONNECTING = re.compile(r"Error (.*?) connecting to (\S+?)\.(?: (.*?)\.?)?", re.DOTALL)
_NUMBER = re.compile(r"(?:^|\[Errno )(\d+)(?:\]|$)")
_NAME_MISMATCHES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH (openssl-verification-options(1))

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
    if _tls_error(error) is not None:
        return StoreFault.TLS
    for piece, fault in _BY_TEXT.items():
        if piece in text:
            return fault
    for kind, fault in _BY_CLASS:
        if isinstance(error, kind):
            return fault
    for match in _CODE.finditer(text):
        fault_by_code = _BY_CODE.get(match.group(1))
        if fault_by_code is not None:
            return fault_by_code
    return StoreFault.OTHER


def elsewhere(error: Exception) -> bool:
    """Whether another server may do what this one cannot: it is to be looked up again."""
    if fault_of(error) is StoreFault.READONLY or isinstance(error, redis_errors.ClusterDownError):
        return True
    # A master without its replicas may have been deposed behind our back.
    return any(match.group(1) in ("CLUSTERDOWN", "NOREPLICAS") for match in _CODE.finditer(str(error)))


def unusable(error: Exception) -> bool:
    """Whether a connection must be made anew after an error: it is broken, on the wrong server, or not logged in.

    What an ACL forbids (NOPERM) is decided command by command, on the same connection.
    """
    if not refusal(error) or elsewhere(error):
        return True
    return fault_of(error) is StoreFault.DENIED and not isinstance(error, redis_errors.NoPermissionError)


def late(error: Exception) -> bool:
    """Whether the server did not answer, or take the connection, in time."""
    return isinstance(error, TimeoutError | redis_errors.TimeoutError)


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS that an exception of redis-py came from: it keeps no more than its text."""
    depth = 0
    while error is not None and depth < 5:
        if isinstance(error, ssl.SSLError):
            return error
        error, depth = error.__cause__ or error.__context__, depth + 1
    return None


def _tls_advice(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NAME_MISMATCHES:
            return "redis_url must name the server as its certificate does"
        return "tls_ca must name the file of the certificate authority that signed the server's certificate"
    if "PEM lib" in str(error) or "KEY_VALUES_MISMATCH" in str(error):
        return "ssl_certfile and ssl_keyfile in redis_url must name PEM files with a certificate and the key to it"
    # A server that asks for a certificate may close before it is read, so that its alert is not always seen.
    return (
        "if Redis asks for a certificate of ours (its tls-auth-clients), add ?ssl_certfile=/path/client.pem"
        "&ssl_keyfile=/path/client.key to redis_url; or is this no port for TLS?"
    )


def _plain(text: str) -> str:
    """Return what redis-py says of a connection that cannot be made with its address, and the reason, told once."""
    match = _CONNECTING.fullmatch(text)
    if match is None:
        return text.removesuffix(".")
    first, server, last = match.groups()
    reason = last or first
    # For a reason asyncio gives the address, and all of them of a name that has several.
    numbers = {int(number) for number in _NUMBER.findall(first)}
    if len(numbers) == 1 and (not last or last.startswith("Connect call failed")):
        reason = os.strerror(numbers.pop())
    return f"no connection to {server}: {reason}"


def reason_of(error: Exception, server: object) -> str:
    """Return what an error says, for a sentence that names the server already."""
    return _plain(str(error)).removeprefix(f"no connection to {server}: ")


def _words(error: Exception) -> str:
    """Return what an exception says, with the remedy where a person needs one."""
    text, tls = _plain(str(error)) or type(error).__name__, _tls_error(error)
    if tls is not None and fault_of(error) is StoreFault.TLS:
        return f"{text}; {_tls_advice(tls)}"
    if isinstance(error, redis_errors.AskError) and error.args and not text.startswith(("MOVED", "ASK")):
        # redis-py cuts the code off, and what is left is a number and an address.
        return f"{'MOVED' if isinstance(error, redis_errors.MovedError) else 'ASK'} {text}"
    return text


def store_error(error: Exception) -> StoreError:
    """Return the StoreError for an exception of redis-py or the system."""
    text = _words(error)
    return StoreError(fault_of(error), text if len(text) <= 500 else text[:499] + "…")
