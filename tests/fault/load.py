"""How much slower than a quiet one this machine may be: the one factor of all bounds that are seconds of work."""

from __future__ import annotations

import os

LOAD = float(os.environ.get("JOBQD_FAULTS_LOAD", "3"))
"""Bounds are those of a quiet machine of two cores, where JOBQD_FAULTS_LOAD=1 holds. What is waited for by a clock (a
lease, a timeout) is not multiplied."""
