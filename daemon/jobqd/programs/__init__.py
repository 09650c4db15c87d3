"""External programs of a job: output by the line, errors in words, an end that leaves nothing behind."""

from jobqd.programs.options import Finished, ProgramOptions
from jobqd.programs.program import MAX_OUTPUT, Program
from jobqd.programs.sync import SyncProgram

__all__ = ["MAX_OUTPUT", "Finished", "Program", "ProgramOptions", "SyncProgram"]
