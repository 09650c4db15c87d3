"""The command lines: `jobqd` for the machine, `jobq` for people."""
