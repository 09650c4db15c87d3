"""Processes that end with the daemon, however it ends."""

from jobqd.guardian.child import Child, Command
from jobqd.guardian.guardian import Guardian

__all__ = ["Child", "Command", "Guardian"]
