"""Processes that run one job each, because its handler wants one (`process=True`) or because it is a suspect."""

from jobqd.children.edition import Edition
from jobqd.children.run import ChildError, Children, ChildRun

__all__ = ["ChildError", "ChildRun", "Children", "Edition"]
