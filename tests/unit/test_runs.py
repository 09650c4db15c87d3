"""The runs of this process, by (id, fence)."""

from __future__ import annotations

from jobqd.runs import Runs
from tests.support.parts import claimed, run_of


def test_a_job_may_have_an_older_run_that_still_lives() -> None:
    runs = Runs()
    old, new = run_of(claimed(fence=1, type="film")), run_of(claimed(fence=2, type="film"))
    other = run_of(claimed("other", type="mail"))
    for run in (old, new, other):
        runs.add(run)
    assert runs.of("job") == [old, new]
    assert runs.of("unknown") == []

    assert runs.remove(old)
    assert not runs.remove(old)
    assert runs.holds("job")
    assert runs.remove(new)
    assert not runs.holds("job")
    assert len(runs) == 1
    assert list(runs) == [other]


def test_a_snapshot_does_not_follow() -> None:
    runs = Runs()
    run = run_of(claimed())
    runs.add(run)
    snapshot = runs.snapshot()
    runs.remove(run)
    assert snapshot == [run]
