"""What an exception means: by its class, by its code anywhere in the text, by what it wraps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from jobqd.errors import StoreError, StoreFault
from jobqd.keys import Keys
from jobqd.store import running
from jobqd.store.call import Call, explain
from jobqd.store.faults import RAISED, REACTIONS, fault_of, no_script, reason_of, refusal, store_error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError("refused"), StoreFault.DOWN),
        (exceptions.ConnectionError("Connection closed by server."), StoreFault.DOWN),
        (exceptions.TimeoutError("Timeout reading from socket"), StoreFault.DOWN),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), StoreFault.DOWN),
        (exceptions.ConnectionError("max number of clients reached"), StoreFault.DOWN),
        (exceptions.ResponseError("ERR max number of clients reached"), StoreFault.DOWN),
        (exceptions.AuthenticationError("invalid username-password pair"), StoreFault.DENIED),
        (exceptions.NoPermissionError("this user has no permissions"), StoreFault.DENIED),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), StoreFault.READONLY),
        (exceptions.MasterDownError("Link with MASTER is down"), StoreFault.READONLY),
        (exceptions.MovedError("3999 127.0.0.1:6381"), StoreFault.READONLY),
        (exceptions.ClusterDownError("Hash slot not served"), StoreFault.BUSY),
        (exceptions.TryAgainError("Multiple keys request during rehashing of slot"), StoreFault.BUSY),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StoreFault.FULL),
        (exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"), StoreFault.DISK),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), StoreFault.DISK),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), StoreFault.BUSY),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), StoreFault.READONLY),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), StoreFault.WRONGTYPE),
        (exceptions.ResponseError("ERR unknown command"), StoreFault.OTHER),
        # Redis 6.2 wraps what a command inside a script answers.
        (
            exceptions.ResponseError(
                "ERR Error running script (call to f_0123456789abcdef0123456789abcdef01234567): @user_script:12: "
                "@user_script: 12: -READONLY You can't write against a read only replica."
            ),
            StoreFault.READONLY,
        ),
        (
            exceptions.ResponseError("Error running script (call to f_0): -OOM command not allowed"),
            StoreFault.FULL,
        ),
        # Redis 6.2 and 7.0 give no code where the ACL forbids what a script does.
        (
            exceptions.ResponseError("ERR The user executing the script can't run this command or subcommand"),
            StoreFault.DENIED,
        ),
        (exceptions.ResponseError("ERR Error running script: -non local key in a cluster node"), StoreFault.BUSY),
        (exceptions.ResponseError("ERR a READONLYish word, OOMs, and a misconf"), StoreFault.OTHER),
    ],
)  # fmt: skip
def test_each_error_has_one_meaning(error: Exception, fault: StoreFault) -> None:
    assert fault_of(error) is fault
    assert store_error(error).fault is fault


def test_what_failed_while_connecting_is_what_counts() -> None:
    wrong = exceptions.AuthenticationError("invalid username-password pair")
    assert fault_of(caused(exceptions.ConnectionError("x"), wrong)) is StoreFault.DENIED
    assert fault_of(caused(exceptions.ConnectionError("x"), OSError("gone"))) is StoreFault.DOWN


def test_errors_of_the_cluster_are_caught_too() -> None:
    assert issubclass(exceptions.RedisClusterException, RAISED)
    assert issubclass(exceptions.RedisError, RAISED)
    assert issubclass(ConnectionResetError, RAISED)


def test_a_refusal_leaves_the_connection_in_step() -> None:
    assert refusal(exceptions.ResponseError("ERR no"))
    assert not refusal(exceptions.ConnectionError("closed"))
    assert not refusal(exceptions.ResponseError("ERR max number of clients reached"))
    assert no_script(exceptions.NoScriptError("No matching script."))
    assert not no_script(exceptions.ResponseError("ERR no"))


def test_a_message_is_bounded_and_never_empty() -> None:
    assert len(str(store_error(exceptions.ResponseError("x" * 10_000)))) == 500
    assert str(store_error(exceptions.ConnectionError())) == "ConnectionError"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Error 111 connecting to 127.0.0.1:1. Connection refused.",
            "no connection to 127.0.0.1:1: Connection refused",
        ),
        (
            "Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1).",
            "no connection to 127.0.0.1:1: Connection refused",
        ),
        (
            "Error Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 111] Connect call "
            "failed ('127.0.0.1', 1) connecting to localhost:1.",
            "no connection to localhost:1: Connection refused",
        ),
        (
            "Error Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 113] Connect call failed "
            "('10.0.0.1', 1) connecting to db:1.",
            "no connection to db:1: Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 113] "
            "Connect call failed ('10.0.0.1', 1)",
        ),
        (
            "Error -2 connecting to a.b:1. Name or service not known.",
            "no connection to a.b:1: Name or service not known",
        ),
        (
            "Error 2 connecting to /run/r.sock. No such file or directory.",
            "no connection to /run/r.sock: No such file or directory",
        ),
        (
            "Error 1 connecting to a:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed.",
            "no connection to a:1: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
        ),
        ("Error connecting to a:1.", "Error connecting to a:1"),
        ("Connection closed by server.", "Connection closed by server"),
    ],
)
def test_the_address_and_the_reason_of_a_lost_connection_are_told_once(said: str, told: str) -> None:
    assert str(store_error(exceptions.ConnectionError(said))) == told


def test_a_sentence_that_names_the_server_leaves_its_address_out() -> None:
    error = StoreError(StoreFault.DOWN, "no connection to a:1: Connection refused")
    assert reason_of(error, "a:1") == "Connection refused"
    assert reason_of(error, "b:1") == "no connection to a:1: Connection refused"


@pytest.mark.parametrize("fault", list(StoreFault))
def test_waiting_helps_unless_a_key_is_wrong_or_nobody_knows(fault: StoreFault) -> None:
    from jobqd.errors import StoreError  # noqa: PLC0415

    assert StoreError(fault, "x").transient is (fault not in (StoreFault.WRONGTYPE, StoreFault.OTHER))


def test_the_table_names_every_fault_and_each_code_once() -> None:
    assert set(REACTIONS) == set(StoreFault)
    codes = [code for reaction in REACTIONS.values() for code in reaction.codes]
    assert len(codes) == len(set(codes))
    for reaction in REACTIONS.values():
        assert 0 < reaction.first_pause <= reaction.longest_pause <= 5


def test_operations_shows_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    section = text.partition("### What Redis may answer")[2].partition("###")[0]
    rows = {row.split("|")[2].strip(" `"): row for row in section.splitlines() if row.startswith("| ")}
    for fault, reaction in REACTIONS.items():
        row = rows[fault]
        assert reaction.meaning.partition(": check")[0] in row
        words = [*reaction.codes, *(text.removesuffix(" in a cluster node") for text in reaction.texts)]
        assert not [word for word in words if word not in row]
        longest = f"{reaction.longest_pause:g} s"
        assert longest in row or "as above" in row or fault is StoreFault.FULL


WRONG = StoreError(StoreFault.WRONGTYPE, "a wrong type")


def explained(error: StoreError, types: Mapping[str, str | None], reasons: Sequence[str] | None = ()) -> StoreError:
    """Return an error as it is told where TYPE answers so ("none" for other keys, None: no answer)."""
    call: Call[Any] = running.promote(Keys("p:"))
    inquiry, reply = explain(error, call), None
    try:
        while True:
            command = inquiry.send(reply)
            reply = reasons if command[0] == "SRANDMEMBER" else types.get(str(command[1]), "none")
    except StopIteration as end:
        return end.value


def test_a_wrong_type_is_named_with_its_key() -> None:
    types = {"p:job_queue": "list", "p:job_queue:scheduled": "zset", "p:job_queue:counters": "string"}
    told = explained(WRONG, types)
    assert told.fault is StoreFault.WRONGTYPE
    assert str(told).startswith("p:job_queue is a list, not a zset, p:job_queue:counters is a string, not a hash: ")


@pytest.mark.parametrize("reasons", [["type:film"], ["missing", "type:film"], None])
def test_held_sets_may_be_of_a_wrong_type_too(reasons: list[str] | None) -> None:
    """Also that of ids without a hash if the reasons cannot be read."""
    told = explained(WRONG, {"p:job_queue:held:missing": "set", "p:job_queue:held:type:film": "set"}, reasons)
    assert "p:job_queue:held:missing is a set, not a zset" in str(told)
    assert ("p:job_queue:held:type:film is a set" in str(told)) is (reasons is not None)


def test_an_error_that_cannot_be_explained_stays_as_it_is() -> None:
    assert explained(WRONG, {}) is WRONG
    assert explained(WRONG, {"p:job_queue": "list", "p:job_queue:scheduled": None}) is WRONG
    other = StoreError(StoreFault.OTHER, "another")
    assert explained(other, {"p:job_queue": "list"}) is other
