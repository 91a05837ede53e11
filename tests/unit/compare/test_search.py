"""Values of trials: drawn once, from what was found; the best of them is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sentei.compare import search as searching
from sentei.compare.choices import Values
from sentei.compare.ranges import JOURNAL
from sentei.compare.runs import Run, Search
from sentei.records import RunReport
from sentei.run.options import settings_from


def searched(folder: Path, space) -> Search:
    search = Search("search/x", "task", "recipe", None, folder, space)
    settings = settings_from({"model": "m"}, {})
    for number in range(3):
        name, at = f"x/{number}", folder / str(number)
        run = Run(name, "trial", "task", "recipe", 0.8, 1, at, settings, number=number)
        search.trials.append(run)
    return search


def study(out: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    return optuna.load_study(study_name="search/x", storage=storage)


def measured(metric: str, value: float) -> RunReport:
    return RunReport.model_construct(metric=metric, sparse={metric: value})


def test_trials_of_a_range_are_drawn_once_and_by_what_was_found(tmp_path):
    """A trial that is begun again, by whomever, keeps its values; the best of them is chosen."""
    space = {"learning_rate": Values(low=1e-5, high=1e-2, log=True), "clip": Values(values=(0, 1))}
    search = searched(tmp_path, space)
    drawn = [searching.draw(search, trial, tmp_path) for trial in search.trials]
    assert [searching.draw(search, trial, tmp_path) for trial in search.trials] == drawn
    rates = [values["learning_rate"] for values in drawn]
    assert len(set(rates)) == 3 and all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert all(values["clip"] in (0, 1) for values in drawn)
    for trial, value in zip(search.trials, (0.1, 0.3, 0.2), strict=True):
        searching.tell(search, trial, tmp_path, measured("accuracy", value))
    assert study(tmp_path).best_params == drawn[1]

    (tmp_path / JOURNAL).unlink()  # and with it the study
    for trial, value in zip(search.trials, (30.0, 10.0, 20.0), strict=True):
        searching.tell(search, trial, tmp_path, measured("perplexity", value))
    again = study(tmp_path)
    assert [trial.params for trial in again.trials] == drawn and again.best_params == drawn[1]


def test_lists_are_counted_out_without_optuna(tmp_path):
    search = searched(tmp_path, {"clip": Values(values=(1, 2, 3))})
    drawn = [searching.draw(search, trial, tmp_path) for trial in search.trials]
    assert drawn == [{"clip": 1}, {"clip": 2}, {"clip": 3}]
    searching.tell(search, search.trials[0], tmp_path, measured("accuracy", 0.1))
    assert not (tmp_path / JOURNAL).exists()
    assert json.loads(search.trials[0].values_file.read_text()) == {"values": {"clip": 1}}
