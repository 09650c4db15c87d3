"""The application on the machine: handlers in /srv/shop, its settings, jobs, and the units that serve them."""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.systemd.lab.machine import Machine
from tests.systemd.lab.prepare import VENV

_numbers = itertools.count(1)


class Application:
    """A fresh application for one test: the units are installed, none runs, Redis is empty."""

    directory = "/srv/shop"
    venv = VENV

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.redis = machine.redis()

    def reboot(self) -> None:
        """Reboot the machine; its Redis is empty then."""
        self.redis.close()
        self.machine.reboot()
        self.redis = self.machine.redis()

    # ------------------------------------------------------------------------------------------ what is deployed

    def install(self) -> None:
        """Do what an administrator does: `make install`."""
        command = ["make", "-C", "/usr/src/jobqd", "install", f"VENV={self.venv}", f"APP_DIR={self.directory}"]
        self.machine.run(*command)
        self.machine.systemctl("daemon-reload")

    def handlers(self, text: str) -> None:
        """Write /srv/shop/handlers.py."""
        self.machine.write(f"{self.directory}/handlers.py", text)

    def settings(self, instance: str = "", *, tables: str = "", **values: object) -> None:
        """Write the TOML file of the unit, or of the instance `jobqd@INSTANCE`; `tables` are its [jobs.TYPE].

        The file of an instance is made as docs/operations.md says, with the mode and group that this brings about.
        """
        file = f"/etc/jobqd/{instance or 'jobqd'}.toml"
        if instance and not self.machine.exists(file):
            self.machine.run("cp", "/etc/jobqd/jobqd.toml", file)
        lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
        self.machine.write(file, "\n".join([*lines, tables, ""]))

    # ---------------------------------------------------------------------------------------------------- units

    def start(self, unit: str = "jobqd") -> None:
        """Start a unit; returns when it is ready, as `systemctl start` does."""
        done = self.machine.run("systemctl", "start", unit, check=False, timeout=100)
        assert done.returncode == 0, f"{done.stderr}\n{self.machine.log(unit)}"

    def stop(self, unit: str = "jobqd") -> None:
        """Stop a unit; returns when it has ended."""
        self.machine.systemctl("stop", unit)

    def host_pid(self, unit: str = "jobqd") -> int:
        """Return the process id of a unit's main process as this host has it, to send it signals."""
        inside = self.machine.main_pid(unit)
        assert inside, f"{unit} does not run\n{self.machine.log(unit)}"
        return self.machine.host_pid(inside)

    # ----------------------------------------------------------------------------------------------------- jobs

    def enqueue(self, kind: str, priority: float = 0, **fields: object) -> str:
        """Enqueue a job as a raw producer does (two commands), and return its id."""
        job = f"{kind}-{next(_numbers)}"
        created = {"status": "queued", "created_at": time.time(), "type": kind}
        self.redis.hset(f"job:{job}", mapping={**created, **{name: str(value) for name, value in fields.items()}})
        self.redis.zadd("job_queue", {job: priority})
        return job

    def job(self, job: str) -> dict[str, Any]:
        """Return a job's hash."""
        return dict(self.redis.hgetall(f"job:{job}"))

    def wait_for(self, job: str, status: str = "completed", timeout: float = 20.0) -> dict[str, Any]:
        """Return a job's hash once it has this status; fails the test at once if it ends with another."""
        final = {status, "completed", "failed", "cancelled"}
        try:
            self.machine.wait_until(lambda: self.job(job).get("status") in final, f"{job} {status}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.job(job)}\n{self.machine.log('jobqd*')[-3000:]}") from None
        found = self.job(job)
        assert found["status"] == status, f"{job} is not {status}: {found}"
        return found

    # ------------------------------------------------------------------------------------------------- clean-up

    def clear(self) -> None:
        """Leave the machine as it was booted: no unit, no settings, no job."""
        machine = self.machine
        machine.run("systemctl", "kill", "--signal=KILL", "jobqd*", check=False)
        machine.run("systemctl", "stop", "jobqd*", check=False)
        machine.shell(
            "rm -rf /etc/systemd/system/{,*.wants/}jobqd* /usr/local/lib/systemd/system/jobqd* "
            "/etc/jobqd /run/jobqd* /var/lib/jobqd* /srv/shop/*.{py,txt} /srv/shop/__pycache__"
        )
        machine.systemctl("daemon-reload")
        machine.run("systemctl", "reset-failed", "jobqd*", check=False)
        machine.systemctl("start", "redis-server")
        self.redis.flushall()
        self.redis.close()


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'
