"""Which runs a worker takes: what is done, failed, waits or is free is said by their folders."""

from __future__ import annotations

import pytest

from helpers.plans import TASK, small
from sentei.compare import worker as workers
from sentei.compare.plan import load
from sentei.compare.runs import Runs
from sentei.compare.worker import Worker
from sentei.locks import Lease
from sentei.records import RunReport
from sentei.run.result import seal


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Runs:
    """A dense model, a reference and two recipes; a run is made by writing its report."""
    plan = load(small(tasks={"one": dict(TASK)}, sparsities=[0.8], seeds=[1]))
    (tmp_path / "plan.yaml").write_text(plan.dump())
    monkeypatch.setattr(workers, "run_here", make)
    monkeypatch.setattr(Worker, "_start", lambda worker, run: None)
    return Runs(plan, tmp_path)


def make(folder, settings, watch, check, **options) -> RunReport:
    check()
    if (folder / "diverges").exists():
        raise FloatingPointError("it diverged")
    (folder / "report.json").touch()
    seal(folder)
    return RunReport.model_construct(metric="accuracy", sparse={"accuracy": 0.5})


def worked(runs: Runs, **options) -> tuple[bool, list[tuple[str, str]]]:
    """Whether all is done after a worker's work, and what it told."""
    events = []
    worker = Worker(runs, tell=events.append, wait=False, **options)
    complete = worker.work()
    return complete, [(event.what, event.run.name.split("/")[2]) for event in events if event.run]


def test_all_runs_are_made_in_order_and_once(runs):
    names = ["start", "dense", "magnitude", "taught"]
    expected = [(what, name) for name in names for what in ("begin", "done")]
    assert worked(runs) == (True, expected)
    assert worked(runs) == (True, [])
    assert not list(runs.out.rglob(".lease*"))


def test_what_another_holds_is_left_to_it(runs):
    lease = Lease(runs["runs/one/dense/seed1"].lease_file, workers.PATIENCE)
    assert lease.take()
    with lease:
        complete, told = worked(runs)
    assert not complete and ("begin", "dense") not in told and ("done", "taught") in told
    assert worked(runs) == (True, [("begin", "dense"), ("done", "dense")])


def test_what_needs_a_failed_run_is_blocked(runs):
    folder = runs["runs/one/start/seed1"].folder
    folder.mkdir(parents=True)
    (folder / "diverges").touch()
    assert worked(runs) == (False, [("begin", "start"), ("failed", "start")])
    assert (folder / "error.txt").read_text().startswith("it diverged\n\nTraceback")


def test_a_failed_run_is_tried_again_by_those_who_come_later(runs):
    run = runs["runs/one/start/seed1"]
    present = Worker(runs)
    run.folder.mkdir(parents=True)
    (run.folder / "diverges").touch()
    ours = Worker(runs, wait=False)
    assert not ours.work()
    assert ours.standing.states()[run.name] == present.standing.states()[run.name] == "failed"
    later = Worker(runs, wait=False)
    assert later.standing.states()[run.name] == "open"
    assert not later.work()
    assert present.standing.states()[run.name] == later.standing.states()[run.name] == "failed"


def test_a_worker_that_lost_its_run_writes_nothing(runs, monkeypatch):
    def lose(folder, settings, watch, check, **options) -> RunReport:
        (folder / ".lease").unlink()
        (folder / ".lease").write_text("another's\n")
        raise FloatingPointError("it diverged")

    monkeypatch.setattr(workers, "run_here", lose)
    worker = Worker(runs, only=[runs["runs/one/start/seed1"]], wait=False)
    events = []
    worker._tell = events.append
    lease = worker.leases.take(worker.selected[0])
    lease._seen = 0.0  # long ago
    with lease:
        worker._make(worker.selected[0], lease)
    assert [event.what for event in events] == ["begin", "lost"]
    assert not worker.selected[0].error_file.exists()


def test_another_patience_is_refused(runs):
    lease = Lease(runs["runs/one/start/seed1"].lease_file, 7.0)
    assert lease.take()
    with lease, pytest.raises(ValueError, match=r"--patience 120: .* is held for 7 s"):
        Worker(runs).work()
