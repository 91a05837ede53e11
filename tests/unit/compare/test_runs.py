"""The runs that a plan asks for, and what they start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.plans import TASK, searched, small
from sentei.compare.plan import load
from sentei.compare.runs import Runs

OUT = Path("out")


def test_every_run_is_there_after_what_it_needs():
    runs = Runs(load(small()), OUT)
    assert len(runs) == len(set(runs)) == 2 * (1 + 2 + 2 * 2 * 2)
    seen = set()
    for name, run in runs.items():
        assert set(run.needs) <= seen and run.folder == Path.cwd() / "out" / name
        seen.add(name)
    assert [n for n in runs if "/start/" in n] == ["runs/one/start/seed1", "runs/one/start/seed2"]


def test_runs_start_from_the_dense_model_of_their_task_and_seed():
    entries = {
        "platon": {"method": "platon", "teacher": "dense"},
        "fresh": "knowledge_aware:published",
        "named": {"method": "knowledge_aware", "teacher": "a/teacher"},
        "plain": "l0",
        "optional": "auto",
        "asked": {"method": "auto", "teacher": "dense"},
    }
    runs = Runs(load(small(tasks={"one": dict(TASK)}, recipes=entries)), OUT)
    dense = str(Path.cwd() / "out/runs/one/start/seed2/model")
    settings = {r: runs[f"runs/one/{r}/0.8/seed2"].settings for r in entries}
    taught = {r: (one.model, one.teacher.model) for r, one in settings.items()}
    assert taught["platon"] == (dense, dense)
    assert taught["fresh"] == ("hub/name", dense)
    assert taught["named"] == (dense, "a/teacher")
    assert taught["plain"] == (dense, None)
    assert taught["optional"] == (dense, None)  # so: itself
    assert taught["asked"] == (dense, dense)
    start, reference = (runs[f"runs/one/{r}/seed2"].settings for r in ("start", "dense"))
    assert (start.model, start.training.epochs, start.training.seed) == ("hub/name", 1, 2)
    assert (reference.model, reference.training.epochs, reference.training.seed) == (dense, 2, 2)
    assert all(run.settings.training.dense_epochs == 0 for run in runs.values())
    assert start.recipe["schedule"]["sparsity"] == 0


def test_trials_never_see_the_evaluation_data_nor_a_model_that_saw_what_judges_them():
    plan = load(searched(settings={"learning_rate": [1e-4, 2e-4]}, set={"score.beta2": [0.6, 0.9]}))
    runs = Runs(plan, OUT)
    trials = [run for run in runs.values() if run.role == "trial"]
    assert len(trials) == 2 * (2 + 4)  # magnitude has no beta2
    start = runs["search/one/start"]
    for run in [start, *trials]:
        assert run.settings.task.holdout == 0.2 and run.seed == 1
    assert {run.settings.model for run in trials} == {str(start.folder / "model")}
    others = [run for run in runs.values() if not run.name.startswith("search/")]
    assert {run.settings.task.holdout for run in others} == {None}
    pruned = runs["runs/one/taught/0.9/seed2"]
    assert pruned.search == "search/one/taught/0.9"
    once = Runs(load(searched(settings={"clip": [1, 2]}, sparsity=0.7)), OUT)
    assert once["runs/one/taught/0.9/seed2"].search == "search/one/taught/all"
    assert once["search/one/taught/all/001"].settings.recipe["schedule"]["sparsity"] == 0.7


def test_some_runs_with_all_they_wait_for():
    runs = Runs(load(searched(settings={"learning_rate": [1e-4, 2e-4]}, sparsity=0.9)), OUT)
    names = [run.name for run in runs.select(["one/taught/0.9/seed2", "one/dense/seed1"])]
    assert names == [
        "search/one/start",
        "search/one/taught/all/000",
        "search/one/taught/all/001",
        "runs/one/start/seed1",
        "runs/one/dense/seed1",
        "runs/one/start/seed2",
        "runs/one/taught/0.9/seed2",
    ]
    assert runs.select(["*"]) == list(runs.values())
    assert {run.sparsity for run in runs.select(["*/0.8/*"])} == {0.8, 0.9, 0}  # 0.9: the search
    with pytest.raises(ValueError, match=r"--only one/tought/\*: .* like one/taught/0\.[89]/seed"):
        runs.select(["one/tought/*"])
