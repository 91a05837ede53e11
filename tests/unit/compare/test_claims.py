"""Claims: a run has one worker, however many ask, and is free again when that one is gone."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from sentei.compare import search
from sentei.compare.begin import _claims
from sentei.compare.cells import Cell, Tuning
from sentei.compare.choices import Values
from sentei.compare.claims import ClaimLost, Claims, masked, open_storage
from sentei.records import RunReport
from sentei.run.options import settings_from

RUNS = [f"run{number}" for number in range(5)]


@pytest.fixture
def place(tmp_path) -> str:
    return str(tmp_path / "claims.log")


def claims(place: str, patience: float = 60.0, runs=("run",)) -> Claims:
    return Claims(open_storage(place), "test", runs, patience)


def work(place: str, runs: list[str], log: Path, start) -> None:
    """Take all that can be had, and note each; in a process of its own."""
    start.wait()
    mine = claims(place, runs=runs)
    while not all(log.with_name(run).exists() for run in runs):
        for run in runs:
            claim = None if log.with_name(run).exists() else mine.take(run)
            if claim is None:
                continue
            with claim:
                if log.with_name(run).exists():  # as a worker does: the folders say what is done
                    continue
                with log.open("a") as file:
                    file.write(f"begin {run}\n")
                time.sleep(0.01)
                with log.open("a") as file:
                    file.write(f"end {run}\n")
                log.with_name(run).touch()
                claim.finish(1.0)


@pytest.mark.parametrize(("kind", "count", "runs"), [("journal", 4, RUNS), ("sqlite", 2, RUNS[:2])])
def test_workers_that_begin_at_the_same_moment_never_have_the_same_run(
    kind, count, runs, place, tmp_path
):
    """They make the storage itself, every study and every claim at the same time."""
    if kind == "sqlite":
        place = f"sqlite:///{place}.db"
    log, fork = tmp_path / "log", multiprocessing.get_context("fork")
    start = fork.Barrier(count)
    workers = [fork.Process(target=work, args=(place, runs, log, start)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * count
    counts = Counter(log.read_text().splitlines())
    assert counts == {f"{word} {run}": 1 for run in runs for word in ("begin", "end")}
    storage = open_storage(place)
    for run in runs:
        study = optuna.load_study(study_name=f"test/{run}", storage=storage)
        states = Counter(trial.state.name for trial in study.get_trials())
        assert states["COMPLETE"] == 1 and not states["RUNNING"]


def test_a_run_is_held_then_done(place):
    mine, other = claims(place), claims(place)
    with mine.take("run") as claim:
        assert other.standing("run") == "held" and other.take("run") is None
        assert mine.take("run") is None
        claim.check()
        claim.finish(0.5)
    assert other.standing("run") == mine.standing("run") == "done" and other.take("run") is None
    assert claims(place).standing("run") == "free"  # what is done the folders say


def test_a_run_left_unfinished_is_free_at_once(place):
    mine, other = claims(place), claims(place)
    with pytest.raises(KeyboardInterrupt), mine.take("run"):
        raise KeyboardInterrupt
    assert other.standing("run") == "free"
    with other.take("run") as claim:
        claim.finish(1.0)


def test_a_failed_run_is_tried_again_by_those_who_come_later(place):
    mine, other = claims(place), claims(place)
    with mine.take("run") as claim:
        joined = claims(place)  # while it was tried
        claim.fail("it diverged")
    assert {one.standing("run") for one in (mine, other, joined)} == {"failed"}
    later = claims(place)
    assert later.standing("run") == "free" and later.take("run") is not None


def test_a_silent_worker_loses_its_run_and_learns_of_it(place):
    mine, other = claims(place, patience=1.0), claims(place, patience=60.0)
    silent = mine.take("run")  # never entered: no beats
    assert other.standing("run") == "held"
    time.sleep(1.1)
    with pytest.raises(ClaimLost):  # by its own clock, before others know
        silent._heard -= 10
        silent._beat = lambda: None
        silent.check()
    with other.take("run") as taken:
        taken.check()
        del silent._beat
        silent._heard = time.time()
        silent._beat()
        with pytest.raises(ClaimLost):
            silent.check()
        silent.finish(0.1)  # must not finish what is no longer its own
        assert mine.standing("run") == "held"
        taken.finish(0.9)
    study = optuna.load_study(study_name="test/run", storage=open_storage(place))
    assert [trial.value for trial in study.get_trials()] == [None, 0.9]


def test_a_beating_worker_keeps_its_run_and_one_that_slept_gets_it_back(place):
    mine, other = claims(place, patience=0.6), claims(place)
    with mine.take("run") as claim:
        for _ in range(8):
            assert other.standing("run") == "held"
            time.sleep(0.2)
        claim._heard -= 3600  # the machine slept, and nobody wanted the run
        claim.check()
        claim.finish(1.0)


def test_trials_of_a_range_are_drawn_once_and_by_what_was_found(place, tmp_path):
    """A trial that is begun again, by whomever, keeps its values; the best of them is chosen."""
    space = {"learning_rate": Values(low=1e-5, high=1e-2, log=True), "clip": Values(values=(0, 1))}
    tuning = Tuning("search/x", "task", "recipe", None, tmp_path, space)
    settings = settings_from({"model": "m"}, {})
    for number in range(3):
        folder = tmp_path / str(number)
        cell = Cell(
            f"x/{number}", "trial", "task", "recipe", 0.8, 1, folder, settings, number=number
        )
        tuning.trials.append(cell)
    drawn = [search.draw(tuning, trial, claims(place)) for trial in tuning.trials]
    assert [search.draw(tuning, trial, claims(place)) for trial in tuning.trials] == drawn
    rates = [values["learning_rate"] for values in drawn]
    assert len(set(rates)) == 3 and all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert all(values["clip"] in (0, 1) for values in drawn)
    for trial, value in zip(tuning.trials, (0.1, 0.3, 0.2), strict=True):
        search.tell(tuning, trial, claims(place), measured("accuracy", value))
    study = optuna.load_study(study_name="test/search/x", storage=open_storage(place))
    assert study.best_params == drawn[1]

    lost = str(tmp_path / "new.log")  # the claims were removed, and with them the study
    for trial, value in zip(tuning.trials, (30.0, 10.0, 20.0), strict=True):
        search.tell(tuning, trial, claims(lost), measured("perplexity", value))
    study = optuna.load_study(study_name="test/search/x", storage=open_storage(lost))
    assert [trial.params for trial in study.trials] == drawn and study.best_params == drawn[1]


def measured(metric: str, value: float) -> RunReport:
    return RunReport.model_construct(metric=metric, sparse={metric: value})


def test_a_relative_database_is_one_file_wherever_a_worker_is_started(tmp_path, monkeypatch):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    begun = _claims(out, "sqlite:///claims.db")
    assert begun[1] == f"sqlite:///{tmp_path / 'claims.db'}"
    monkeypatch.chdir(elsewhere)
    assert _claims(out, None) == begun == _claims(out, "sqlite:///../claims.db")


def test_comparisons_in_one_storage_do_not_meet(place):
    storage = open_storage(place)
    one, two = (Claims(storage, name, ["run"], 60.0) for name in ("one", "two"))
    with one.take("run"):
        assert two.take("run") is not None


def test_a_storage_that_cannot_be_opened(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be opened \(.*\); give a database URL"):
        open_storage("nosuch://anna:secret@host/db")
    with pytest.raises(ValueError) as error:
        open_storage("nosuch://anna:secret@host/db")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://anna:s:e@c@host/db", "postgresql://anna:***@host/db"),
        ("postgresql://anna@host/db", "postgresql://anna@host/db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_passwords_are_not_shown(url, shown):
    assert masked(url) == shown
