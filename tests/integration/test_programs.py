"""External programs and their guardian: real processes, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
import uvloop

from jobqd.errors import ProgramError
from jobqd.guardian import Guardian
from jobqd.programs import MAX_OUTPUT, Finished, Program, ProgramOptions, SyncProgram
from tests.support.processes import alive

PATIENCE = 15.0
DAEMON = Path(__file__).parents[2] / "daemon"
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 1; done"
FAMILY = "sleep 1000 & echo $!; sh -c 'echo $$; exec sleep 1000'"
"""A program that prints the ids of two grandchildren."""

Run = Callable[..., Program]


def on_both_loops(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run an async test on the loop of asyncio, and on uvloop's."""

    @functools.wraps(test)
    def synchronous(loop: str, **fixtures: object) -> None:
        (uvloop.run if loop == "uvloop" else asyncio.run)(test(**fixtures))

    own = inspect.signature(test)
    added = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    synchronous.__signature__ = own.replace(parameters=[*own.parameters.values(), added])  # type: ignore[attr-defined]
    del synchronous.__wrapped__  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(synchronous)


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    guardian = Guardian()
    yield guardian
    guardian.close()


@pytest.fixture
def run(guardian: Guardian) -> Run:
    return lambda *argv, **options: Program(argv, ProgramOptions(**options), guardian)


def gone(pid: int) -> None:
    """Return when a process has ended (a zombie counts); fail if it does not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(PATIENCE * 1000)
    os.close(descriptor)
    assert ended, f"process {pid} is still there"


# Output


@on_both_loops
async def test_lines(run: Run) -> None:
    assert [line async for line in run("printf", r"a\rb\r\nc\n\nd")] == ["a", "b", "c", "", "d"]


@on_both_loops
async def test_lines_arrive_while_the_program_runs(run: Run) -> None:
    program = run("sh", "-c", "echo first; exec sleep 1000")
    async with asyncio.timeout(PATIENCE):
        assert await anext(program) == "first"
        assert program.status is None
        await program.stop()


@on_both_loops
async def test_all_of_the_output(run: Run) -> None:
    assert await run("printf", r"a\nb\377") == Finished(0, "a\nb\ufffd")


@on_both_loops
async def test_output_beyond_the_limit_is_an_error_and_ends_the_program(run: Run) -> None:
    with pytest.raises(ProgramError, match="larger than 16MiB; iterate over its lines"):
        await run("head", "-c", str(MAX_OUTPUT + 1), "/dev/zero")
    assert len((await run("head", "-c", str(MAX_OUTPUT), "/dev/zero")).output) == MAX_OUTPUT


@on_both_loops
async def test_a_program_that_never_pauses_leaves_the_loop_to_others(run: Run) -> None:
    count = at_last_turn = longest = 0

    async def neighbour() -> None:
        nonlocal at_last_turn, longest
        while True:
            longest, at_last_turn = max(longest, count - at_last_turn), count
            await asyncio.sleep(0)

    task = asyncio.create_task(neighbour())
    async for _ in run("sh", "-c", "yes | head -c 1000000"):
        count += 1
    task.cancel()
    assert count == 500_000
    assert longest <= 16 * 1024 / 2 + 1  # the lines of one piece


@on_both_loops
async def test_standard_input_is_empty_or_what_was_given(run: Run) -> None:
    assert await run("cat") == Finished(0, "")
    text = "0123456789" * 100_000
    assert (await run("cat", input=text.encode())).output == text
    assert await run("true", input=text.encode()) == Finished(0, "")


@on_both_loops
async def test_working_directory_and_environment(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "$PWD $GREETING ${NOTIFY_SOCKET-none}"\n')
    script.chmod(0o755)
    options = {"cwd": str(tmp_path), "env": {"GREETING": "hi", "PATH": f"{tmp_path}:{os.environ['PATH']}"}}
    os.environ["NOTIFY_SOCKET"] = "/run/systemd/notify"
    try:
        assert (await run("./script", **options)).output == f"{tmp_path} hi none\n"
        assert (await run("script", **options)).output == f"{tmp_path} hi none\n"
    finally:
        del os.environ["NOTIFY_SOCKET"]


@on_both_loops
async def test_the_password_of_redis_is_not_handed_on_unless_it_is_given(run: Run) -> None:
    names, show = ("JOBQD_REDIS_PASSWORD", "JOBQD_REDIS_URL"), ("sh", "-c", "env | grep -E '^JOBQD_[RQ]' || true")
    plain, ours = "JOBQD_REDIS_URL=redis://host/2\n", {"JOBQD_REDIS_PASSWORD": "S3cr", "JOBQD_QUEUE": "q"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        for url in ("redis://:S3cr@host", "redis://S3cr@host", "unix:///run/redis.sock?db=1&password=S3cr", "S3cr@h"):
            patch.setenv("JOBQD_REDIS_URL", url)
            assert (await run(*show)).output == "JOBQD_QUEUE=q\n", url
        patch.setenv("JOBQD_REDIS_URL", "redis://host/2")
        assert sorted((await run(*show)).output.splitlines()) == ["JOBQD_QUEUE=q", plain.rstrip()]
        given = (await run(*show, env={name: os.environ[name] for name in names})).output
        assert sorted(given.splitlines()) == ["JOBQD_QUEUE=q", "JOBQD_REDIS_PASSWORD=S3cr", plain.rstrip()]


# Errors


@on_both_loops
async def test_status_and_last_words(run: Run) -> None:
    program = run("sh", "-c", "for i in $(seq 1000); do echo line $i >&2; done; exit 3")
    with pytest.raises(ProgramError) as caught:
        await program
    assert str(caught.value) == "sh ended with status 3: " + "\n".join(f"line {n}" for n in range(996, 1001))
    assert caught.value.status == program.status == 3
    assert caught.value.stderr == "\n".join(f"line {n}" for n in range(951, 1001))


@on_both_loops
async def test_a_failing_program_gives_its_lines_before_the_error(run: Run) -> None:
    program = run("sh", "-c", "printf 'a\\nb'; exit 1")
    lines = [await anext(program), await anext(program)]
    with pytest.raises(ProgramError, match=r"^sh ended with status 1$"):
        await anext(program)
    assert lines == ["a", "b"]


@on_both_loops
async def test_stderr_is_drained_though_nobody_reads_it(run: Run) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await run("sh", "-c", "head -c 3000000 /dev/zero >&2; echo done") == Finished(0, "done\n")


@on_both_loops
async def test_merged_stderr(run: Run) -> None:
    assert (await run("sh", "-c", "echo out; echo err >&2", stderr="merge")).output == "out\nerr\n"
    with pytest.raises(ProgramError, match="status 2: out\nerr"):
        await run("sh", "-c", "echo out; echo err >&2; exit 2", stderr="merge")


@on_both_loops
async def test_unchecked_status(run: Run) -> None:
    assert await run("sh", "-c", "echo x; exit 4", check=False) == Finished(4, "x\n")
    program = run("sh", "-c", "exit 4", check=False)
    assert [line async for line in program] == []
    assert program.status == 4


@on_both_loops
async def test_a_signal_is_named(run: Run) -> None:
    with pytest.raises(ProgramError, match="was ended by SIGSEGV") as caught:
        await run("sh", "-c", "kill -SEGV $$")
    assert caught.value.status == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        (("no-such-program",), {}, 'there is no program "no-such-program" on PATH: install it, or give its full path'),
        (("/no/such",), {}, 'there is no program "/no/such": check the path'),
        (("true",), {"cwd": "/no/such"}, 'true cannot be started: cwd "/no/such" is not a directory'),
        (("true", "a\0b"), {}, "true cannot be started: embedded null byte"),
        ((), {}, 'there is no program to run: write job.exec("ffmpeg", "-i", ...)'),
    ],
)
@on_both_loops
async def test_what_cannot_start(run: Run, argv: tuple[str, ...], options: dict[str, str], message: str) -> None:
    before = len(descriptors())
    with pytest.raises(ProgramError) as caught:
        await run(*argv, **options)
    assert str(caught.value) == message
    await asyncio.sleep(0)  # the transports close their pipes in the next turn
    assert len(descriptors()) <= before + 1  # the guardian's pipe


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match='stderr=\'both\': write "tail" or "merge"'):
        ProgramOptions(stderr="both")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="input is a str: give bytes"):
        ProgramOptions(input="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'soon' is not a duration"):
        ProgramOptions(kill_after="soon")
    with pytest.raises(TypeError, match="shell"):
        ProgramOptions(shell=True)  # type: ignore[call-arg]


# The end


async def family(program: Program) -> tuple[int, int]:
    async with asyncio.timeout(PATIENCE):
        return int(await anext(program)), int(await anext(program))


@on_both_loops
async def test_cancelling_the_user_ends_the_tree_first(run: Run) -> None:
    started: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    async def handler() -> None:
        program = run("sh", "-c", FAMILY)
        started.set_result(await family(program))
        async for _ in program:
            pass

    task = asyncio.create_task(handler())
    pids = await asyncio.wait_for(started, PATIENCE)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert not any(map(alive, pids))


@on_both_loops
async def test_stop_ends_the_tree_and_may_be_called_twice(run: Run) -> None:
    program = run("sh", "-c", FAMILY)
    pids = await family(program)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(program.stop(), program.stop())
        await program.stop()
    assert not any(map(alive, pids))
    with pytest.raises(ProgramError, match="sh was stopped") as caught:
        await program
    assert caught.value.status == -signal.SIGTERM


@on_both_loops
async def test_what_ignores_sigterm_is_killed_after_a_while(run: Run) -> None:
    program = run("sh", "-c", STUBBORN, kill_after="100ms", check=False)
    pid = int(await anext(program))
    began = time.monotonic()
    await program.stop()
    assert 0.1 <= time.monotonic() - began < 5
    assert not alive(pid)


@on_both_loops
async def test_a_frozen_program_gets_its_sigterm(run: Run) -> None:
    program = run("sh", "-c", "trap 'exit 7' TERM; echo $$; while :; do sleep 0.01; done", kill_after=PATIENCE)
    os.kill(int(await anext(program)), signal.SIGSTOP)
    await program.stop()
    with pytest.raises(ProgramError) as caught:
        await program
    assert caught.value.status == 7


@on_both_loops
async def test_nothing_runs_on_in_the_background(run: Run) -> None:
    async with asyncio.timeout(PATIENCE):
        pid = int((await run("sh", "-c", "sleep 1000 & echo $!")).output)
    assert not alive(pid)


@on_both_loops
async def test_output_held_open_by_a_process_that_left_the_group_does_not_hang(run: Run) -> None:
    script = "import os; pid = os.fork(); pid or (os.setsid(), os.execvp('sleep', ['sleep', '1000'])); print(pid)"
    # Its parent may end only once it has left.
    script = script.replace("print(pid)", "[None for _ in iter(lambda: os.getpgid(pid), pid)]; print(pid)")
    async with asyncio.timeout(PATIENCE):
        pid = int((await run(sys.executable, "-c", script)).output)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


@on_both_loops
async def test_output_held_open_is_not_waited_for_by_a_late_reader(run: Run) -> None:
    script = "import os; pid = os.fork(); pid or (os.setsid(), os.execvp('sleep', ['sleep', '1000']))"
    script += "; [None for _ in iter(lambda: os.getpgid(pid), pid)]; print(os.getpid(), pid, flush=True)"
    program = run(sys.executable, "-c", script)
    async with asyncio.timeout(PATIENCE):
        leader, escaped = map(int, (await anext(program)).split())
        while Path(f"/proc/{leader}").exists():
            await asyncio.sleep(0)
        assert [line async for line in program] == []
    assert alive(escaped)
    os.kill(escaped, signal.SIGKILL)


@on_both_loops
async def test_stop_before_the_start_prevents_it(run: Run, tmp_path: Path) -> None:
    program = run("touch", str(tmp_path / "mark"))
    await program.stop()
    with pytest.raises(ProgramError, match="touch was not started: its run has ended"):
        await program
    assert not (tmp_path / "mark").exists()


@on_both_loops
async def test_no_descriptor_and_no_thread_is_left(run: Run) -> None:
    await run("true")
    await asyncio.sleep(0)
    before = descriptors()
    for _ in range(5):
        await run("cat", input=b"x" * 100_000)
        await asyncio.sleep(0)
    assert descriptors() == before


# Clean slate


@on_both_loops
async def test_signals_and_descriptors_are_not_inherited(run: Run) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        status = (await run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")).output
        opened = (await run("ls", "/proc/self/fd")).output
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        os.close(read_end)
        os.close(write_end)
    blocked, ignored = (int(line.split()[1], 16) for line in status.splitlines())
    internal = 1 << 31 | 1 << 32  # 32 and 33 belong to the C library, which lets nobody touch them
    assert (blocked, ignored & ~internal) == (0, 0)
    assert opened.split() == ["0", "1", "2", "3"]  # 3: the directory that ls reads


@on_both_loops
async def test_a_session_of_its_own(run: Run) -> None:
    fields = (await run("cat", "/proc/self/stat")).output.rpartition(")")[2].split()
    group, session = int(fields[2]), int(fields[3])
    assert group == session != os.getsid(0)


# Threads


@on_both_loops
async def test_a_thread_reads_lines_and_waits(run: Run) -> None:
    loop = asyncio.get_running_loop()

    def handler() -> tuple[list[str], Finished]:
        return list(SyncProgram(run("printf", r"a\nb"), loop)), SyncProgram(run("echo", "hi"), loop).run()

    assert await asyncio.to_thread(handler) == (["a", "b"], Finished(0, "hi\n"))


@on_both_loops
async def test_stopping_the_program_frees_its_thread(run: Run) -> None:
    loop = asyncio.get_running_loop()
    program = run("sh", "-c", "echo ready; exec sleep 1000")
    ready = asyncio.Event()

    def handler() -> None:
        for _ in SyncProgram(program, loop):
            loop.call_soon_threadsafe(ready.set)

    async with asyncio.timeout(PATIENCE):
        thread = asyncio.create_task(asyncio.to_thread(handler))
        await ready.wait()
        await program.stop()
        with pytest.raises(ProgramError, match="sh was stopped"):
            await thread


# The guardian

PARENT = """
import asyncio, os, signal, sys
from jobqd.guardian import Guardian
from jobqd.programs import Program, ProgramOptions

class Doomed(Guardian):
    def protect(self, pgid):
        print(pgid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    kind, *argv = sys.argv[1:]
    guardian = Doomed() if kind == "doomed" else Guardian()
    async for line in Program(tuple(argv), ProgramOptions(), guardian):
        print(guardian.pid, line, flush=True)

asyncio.run(main())
"""


@contextlib.contextmanager
def parent(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a program under a guardian and prints the guardian's id before each line."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), *argv]
    env = {**os.environ, "PYTHONPATH": str(DAEMON)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def read_pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def test_a_killed_daemon_leaves_no_program_behind() -> None:
    with parent("kind", "sh", "-c", FAMILY) as process:
        guardian, first = read_pids(process)
        _, second = read_pids(process)
        assert alive(first)
        assert alive(second)
        process.kill()
        for pid in (first, second, guardian):
            gone(pid)


def test_a_killed_daemon_leaves_no_stubborn_program_behind() -> None:
    with parent("kind", "sh", "-c", STUBBORN) as process:
        guardian, pid = read_pids(process)
        process.kill()
        gone(pid)
        gone(guardian)


def test_the_guardian_outlives_the_signals_that_end_the_daemon() -> None:
    with parent("kind", "sh", "-c", FAMILY) as process:
        guardian, first = read_pids(process)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guardian, number)
        process.terminate()
        gone(first)


def test_a_program_does_not_run_before_the_guardian_knows_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with parent("doomed", "touch", str(mark)) as process:
        (pid,) = read_pids(process)
        gone(pid)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not mark.exists()


@on_both_loops
async def test_a_dead_guardian_is_replaced_and_told_again(run: Run, guardian: Guardian) -> None:
    program = run("sh", "-c", FAMILY)
    pids = await family(program)
    first = guardian.pid
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while guardian.pid in (0, first):
            await asyncio.sleep(0)
        await asyncio.to_thread(guardian.close)  # as if the daemon were gone
        with pytest.raises(ProgramError, match="sh was ended by SIGTERM"):
            await anext(program)
    assert not any(map(alive, pids))


@on_both_loops
async def test_a_hanging_guardian_is_replaced_and_harms_nobody(run: Run, guardian: Guardian) -> None:
    program = run("sh", "-c", FAMILY)
    pids = await family(program)
    first = guardian.pid
    other = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    os.kill(first, signal.SIGSTOP)
    for _ in range(100_000):
        guardian.protect(other.pid)
        guardian.release(other.pid)
        if guardian.pid != first:
            break
    assert guardian.pid != first
    await asyncio.to_thread(gone, first)
    assert all(map(alive, pids))
    await program.stop()
    other.kill()
    await other.wait()


@on_both_loops
async def test_the_guardian_is_small(run: Run, guardian: Guardian) -> None:
    await run("true")
    status = Path(f"/proc/{guardian.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < 14_000  # KiB


@on_both_loops
async def test_closing_ends_the_guardian(run: Run, guardian: Guardian) -> None:
    await run("true")
    pid = guardian.pid
    assert alive(pid)
    guardian.close()
    assert not alive(pid)


def test_only_a_real_group_can_be_protected() -> None:
    for group in (-1, 0, 1):
        with pytest.raises(ValueError, match="not a process group"):
            Guardian().protect(group)


@on_both_loops
async def test_a_program_that_the_guardian_cannot_protect_does_not_run(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    executable, sys.executable = sys.executable, "/no/such/python"
    try:
        with pytest.raises(ProgramError, match="touch cannot be started: the guardian process cannot start"):
            await run("touch", str(mark))
    finally:
        sys.executable = executable
    assert not mark.exists()
    await run("touch", str(mark))
    assert mark.exists()
