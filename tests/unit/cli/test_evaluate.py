"""Of a run's settings, those that the options of ``sentei evaluate`` leave standing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentei.cli.options import of_run
from sentei.run.options import settings_from


@pytest.fixture
def run(tmp_path) -> Path:
    options = {
        "model": "m",
        "task": "sst2",
        "train": tmp_path / "train.csv",
        "eval": tmp_path / "dev.csv",
        "holdout": 0.2,
        "text_column": "words",
        "metric": "accuracy",
        "max_length": 64,
    }
    settings_from(options, {}).write(tmp_path / "run.yaml")
    return tmp_path / "run.yaml"


def test_what_is_not_typed_is_the_runs(run):
    options = of_run(run, {"model": "x", "batch_size": 8})
    assert (options["train"], options["holdout"]) == (run.with_name("train.csv"), 0.2)
    assert options["text_column"] == "words" and "epochs" not in options


def test_a_typed_file_replaces_what_the_run_set_aside(run):
    options = of_run(run, {"model": "x", "eval": Path("other.csv")})
    assert not {"eval", "holdout"} & options.keys()
    assert options["train"] == run.with_name("train.csv")
    assert (options["task"], options["text_column"]) == ("sst2", "words")


@pytest.mark.parametrize("typed", [{"task": "mrpc"}, {"task": "wnut_17"}])
def test_a_typed_task_replaces_columns_and_files(run, typed):
    options = of_run(run, {"model": "x", **typed})
    gone = {"task", "train", "eval", "holdout", "text_column", "label_column", "metric", "kind"}
    assert not gone & options.keys()
    assert options["max_length"] == 64
    settings = settings_from({**options, "model": "x", **typed}, {})
    assert settings.task.max_length == 64


def test_a_typed_kind_replaces_columns(run):
    options = of_run(run, {"model": "x", "kind": "language"})
    assert not {"kind", "metric", "text_column", "label_column"} & options.keys()
    assert options["train"] == run.with_name("train.csv")
