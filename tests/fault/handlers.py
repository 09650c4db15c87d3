"""The application of a laboratory's daemons: handlers that note in a ledger when they begin and when they end."""

from __future__ import annotations

ALL_HANDLERS = "handlers:handlers,handlers:deadly"

HANDLERS = """
import contextlib, ctypes, re
from tests.fault.failpoints import arm
from tests.fault.ledger import RunLedger
arm(Path(__file__).parent)
runs = RunLedger(Path(__file__).parent)
# What ends or hangs its daemon: a daemon that has to live through everything does without.
deadly = Handlers()

@handlers.job("effect")
async def effect(job: Job, seconds: float = 0.0):
    runs.start(job)
    await asyncio.sleep(seconds)
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("gated")
async def gated(job: Job):
    runs.start(job)
    await ledger.gate("gate")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("first_run_gated")
async def first_run_gated(job: Job):
    runs.start(job)
    if job.fence == 1:
        await ledger.gate("gate")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("by_turns")
async def by_turns(job: Job):
    runs.start(job)
    await ledger.gate(f"run-{job.fence}")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

async def mark(job: Job):
    await job.progress(50, step=f"{os.getpid()}:{job.fence}")
    await job.save_checkpoint({"fence": job.fence, "pid": os.getpid()})

@handlers.job("marks")
async def marks(job: Job, seconds: float = 0.0):
    # Progress and checkpoint name the run that wrote them; the first of a job's runs writes them again, late.
    runs.start(job)
    await mark(job)
    runs.note("marked", job)
    if seconds:
        await asyncio.sleep(seconds)
    else:
        await ledger.gate(f"run-{job.fence}")
    if job.fence == 1:
        with contextlib.suppress(LeaseLost):
            await mark(job)
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("flaky")
async def flaky(job: Job):
    runs.start(job)
    if job.attempt == 1:
        raise ValueError("the first attempt fails")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("snoozes")
async def snoozes(job: Job):
    runs.start(job)
    if job.fence == 1:
        raise Snooze("50ms")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("hopeless")
async def hopeless(job: Job):
    runs.start(job)
    raise Fail("for good")

@deadly.job("dies")
async def dies(job: Job, how: str):
    runs.start(job)
    await asyncio.sleep(0.1)  # its neighbours have begun
    if how == "abort":
        os.abort()
    ctypes.string_at(0)

@handlers.job("film")
async def film(job: Job):
    runs.start(job)
    program = 'trap "echo SIGINT >> $0.log" INT; trap "echo SIGTERM >> $0.log; exit 1" TERM; echo $$ >> $0.pid; ' \
        'while [ ! -e $0.end ]; do sleep 0.02; done; echo end >> $0.log'
    await job.exec("sh", "-c", program, str(Path(__file__).parent / job.id))
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("program")
async def program(job: Job):
    runs.start(job)
    await job.exec("sleep", "0.1")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("apart", process=True)
async def apart(job: Job, seconds: float = 0.0):
    runs.start(job)
    await asyncio.sleep(seconds)
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@handlers.job("reports")
async def reports(job: Job, times: int = 100, pause: float = 0.0):
    runs.start(job)
    for i in range(times):
        await job.progress(i * 100 / times, step="x" * 200)
        await asyncio.sleep(pause)
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@deadly.job("holds")
async def holds(job: Job):
    runs.start(job)
    await ledger.gate("hold")
    # A regular expression that keeps the interpreter's lock: no other thread of the process runs again.
    re.match("(a+)+$", "a" * 40 + "b")

@deadly.job("blocks")
async def blocks(job: Job):
    runs.start(job)
    ledger.gate_in_thread("unblock")
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}

@deadly.job("spins")
async def spins(job: Job):
    runs.start(job)
    # Python code without a pause: other threads get its lock by turns. Looking more often would let go of the lock each
    # time and take it again before another thread wakes up: that can keep a heartbeat waiting for seconds.
    turns = 0
    while turns % 1000000 or not ledger.is_open("unblock"):
        turns += 1
    runs.end(job)
    return {"fence": job.fence, "pid": os.getpid()}
"""
