"""Of a run's settings, those that the options of ``sentei evaluate`` leave standing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentei.cli.evaluate import _of_run
from sentei.run.settings import Settings


@pytest.fixture
def run(tmp_path) -> Path:
    settings = Settings(
        model="m",
        task="sst2",
        train=tmp_path / "train.csv",
        eval=tmp_path / "dev.csv",
        holdout=0.2,
        text_column="words",
        metric="accuracy",
        max_length=64,
        recipe={},
    )
    settings.write(tmp_path / "run.yaml")
    return tmp_path / "run.yaml"


def test_what_is_not_typed_is_the_runs(run):
    found = _of_run(run, {"model": "x", "batch_size": 8})
    assert (found["train"], found["holdout"]) == (run.with_name("train.csv"), 0.2)
    assert found["text_column"] == "words" and "epochs" not in found


def test_a_typed_file_replaces_what_the_run_set_aside(run):
    found = _of_run(run, {"model": "x", "eval": Path("other.csv")})
    assert not {"eval", "holdout"} & found.keys()
    assert found["train"] == run.with_name("train.csv")
    assert (found["task"], found["text_column"]) == ("sst2", "words")


def test_a_typed_task_replaces_columns_and_files(run):
    found = _of_run(run, {"model": "x", "task": "mrpc"})
    gone = {"task", "train", "eval", "holdout", "text_column", "label_column", "metric", "kind"}
    assert not gone & found.keys()
    assert found["max_length"] == 64
