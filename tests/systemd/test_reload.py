"""`systemctl reload`: what changes, what is refused, what the journal says."""

from __future__ import annotations

from tests.systemd.lab import Application, Machine

HANDLERS = """
import asyncio
from jobqd import Handlers, Job
handlers = Handlers()

@handlers.job
async def nap(seconds: float = 0.0):
    await asyncio.sleep(seconds)

@handlers.job
async def fails():
    raise RuntimeError("as always")

@handlers.job
async def speaks(job: Job):
    job.log.debug("a word")
"""


def told(machine: Machine, unit: str, after: str) -> str:
    return "\n".join(str(entry["MESSAGE"]) for entry in machine.journal(unit, after=after))


def spoken(machine: Machine, job: str) -> bool:
    return any("a word" in str(entry["MESSAGE"]) for entry in machine.journal("jobqd", JOB_ID=job))


def running(app: Application) -> int:
    return int(app.redis.zcard("job_queue:active"))


def test_a_reload_changes_what_can_change_and_tells_the_difference(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings(concurrency=1)
    app.start()
    pid = machine.main_pid("jobqd")
    for _ in range(4):
        app.enqueue("nap", seconds=300)
    machine.wait_until(lambda: running(app) == 1, "one runs")
    before = machine.cursor()
    app.settings(concurrency=3, queue="other", tables='[jobs.nap]\ntimeout = "10m"\n')
    machine.systemctl("reload", "jobqd")
    machine.wait_until(lambda: running(app) == 3, "three run")
    journal = told(machine, "jobqd", before)
    assert "reloaded: concurrency: 1 -> 3, [jobs.nap] timeout: not set -> 10m" in journal
    assert "in force only after a restart: queue: job_queue -> other" in journal
    assert (machine.main_pid("jobqd"), machine.show("jobqd", "ActiveState")) == (pid, "active")
    machine.wait_until(lambda: machine.show("jobqd", "StatusText").startswith("3 workers, 3 running"), "the status")


def test_caps_the_retry_policy_and_the_log_level_take_effect(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings(max_attempts=1, retry_delay="50ms", log_level="info", tables="[jobs.nap]\nconcurrency = 1\n")
    app.start()
    for _ in range(4):
        app.enqueue("nap", seconds=300)
    # Behind the naps: those at the cap are put aside by then.
    assert app.wait_for(app.enqueue("fails", priority=1), "failed")["attempts"] == "1"
    quiet = app.enqueue("speaks")
    app.wait_for(quiet)
    assert running(app) == 1
    app.settings(max_attempts=3, retry_delay="50ms", log_level="debug", tables="[jobs.nap]\nconcurrency = 3\n")
    machine.systemctl("reload", "jobqd")
    machine.wait_until(lambda: running(app) == 3, "three run")
    assert app.wait_for(app.enqueue("fails"), "failed")["attempts"] == "3"
    loud = app.enqueue("speaks")
    app.wait_for(loud)
    words = machine.wait_until(lambda: [job for job in (quiet, loud) if spoken(machine, job)], "its word")
    assert words == [loud]
    assert machine.show("jobqd", "NRestarts") == "0"


def test_a_bad_file_fails_the_reload_with_its_reason_and_nothing_changes(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings(concurrency=2)
    app.start()
    pid = machine.main_pid("jobqd")
    before = machine.cursor()
    machine.write("/etc/jobqd/jobqd.toml", "concurency = 3\n")
    done = machine.run("systemctl", "reload", "jobqd", check=False)
    assert done.returncode != 0
    journal = told(machine, "jobqd", before)
    assert "concurency" in journal
    assert "concurrency" in journal, "the right name is suggested"
    assert (machine.main_pid("jobqd"), machine.show("jobqd", "ActiveState")) == (pid, "active")
    app.wait_for(app.enqueue("nap"))
    app.settings(concurrency=2)
    machine.systemctl("reload", "jobqd")


def test_the_environment_file_is_read_again_too(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    app.start()
    before = machine.cursor()
    machine.write("/etc/jobqd/jobqd.env", "JOBQD_CONCURRENCY=7\n", mode=0o600)
    machine.systemctl("reload", "jobqd")
    assert "concurrency: 32 -> 7" in told(machine, "jobqd", before)


def test_a_signal_and_an_administrator_do_the_same(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    app.settings()
    app.start()
    pid = machine.main_pid("jobqd")
    app.settings(concurrency=3)
    before = machine.cursor()
    for _ in range(50):
        machine.run("kill", "-HUP", str(pid))
    machine.wait_until(lambda: "concurrency: 32 -> 3" in told(machine, "jobqd", before), "the difference")
    app.settings(concurrency=4)
    by_hand = machine.run(
        "jobqd", "reload", "--config", "/etc/jobqd/jobqd.toml", "--runtime-dir", "/run/jobqd", check=False
    )
    assert (by_hand.returncode, by_hand.stdout) == (0, "concurrency: 3 -> 4\n"), by_hand.stderr
    machine.wait_until(lambda: machine.show("jobqd", "ActiveState") == "active", "active again")
    assert machine.main_pid("jobqd") == pid


def test_an_instance_is_reloaded_by_its_own_name(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    for name in ("a", "b"):
        app.settings(name, concurrency=1)
        app.start(f"jobqd@{name}")
    before = machine.cursor()
    app.settings("a", concurrency=2)
    app.settings("b", concurrency=3)
    machine.systemctl("reload", "jobqd@a")
    assert "concurrency: 1 -> 2" in told(machine, "jobqd@a", before)
    assert "reloaded" not in told(machine, "jobqd@b", before)


def test_by_hand_the_unit_or_the_instance_is_enough(app: Application, machine: Machine) -> None:
    app.handlers(HANDLERS)
    # The environment file says where Redis is: a reload need not know.
    machine.write("/etc/jobqd/jobqd.env", "JOBQD_REDIS_URL=unix:///run/redis/redis-server.sock\n", 0o600)
    app.settings(concurrency=1)
    app.start()
    app.settings("a", concurrency=1)
    app.start("jobqd@a")
    app.settings(concurrency=2)
    app.settings("a", concurrency=3)
    assert machine.run("jobqd", "reload", environ={"XDG_RUNTIME_DIR": "/run/user/0"}).stdout == "concurrency: 1 -> 2\n"
    assert machine.run("jobqd", "reload", "-i", "a").stdout == "concurrency: 1 -> 3\n"
    assert machine.run("jobqd", "reload", "--instance", "a").stdout == "nothing has changed\n"
    assert machine.run("runuser", "-u", "jobqd", "--", "jobqd", "reload").stdout == "nothing has changed\n"
    app.settings(concurency=2)
    bad = machine.run("jobqd", "reload", check=False)
    assert (bad.returncode, "did you mean concurrency" in bad.stderr) == (78, True)
    machine.wait_until(lambda: "concurency" in machine.log("jobqd"), "the refusal in the journal")
    app.stop("jobqd@a")
    gone = machine.run("jobqd", "reload", "-i", "a", check=False)
    assert (gone.returncode, "systemctl status jobqd@a.service" in gone.stderr) == (69, True)
