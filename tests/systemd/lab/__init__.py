"""A booted Debian to test the unit in: systemd-nspawn on a cached root file system, gone without a trace afterwards."""

from tests.systemd.lab.application import Application
from tests.systemd.lab.machine import Machine
from tests.systemd.lab.nspawn import boot
from tests.systemd.lab.possible import Failed, Unavailable, tolerated
from tests.systemd.lab.prepare import prepare
from tests.systemd.lab.timing import assert_takes_less

__all__ = ["Application", "Failed", "Machine", "Unavailable", "assert_takes_less", "boot", "prepare", "tolerated"]
