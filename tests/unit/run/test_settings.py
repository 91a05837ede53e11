"""Settings as they are kept: nested by who reads them, complete, and true in any folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from sentei.run.options import flat, settings_from
from sentei.run.settings import Settings

RECIPE = {"method": "magnitude"}


def test_what_is_read_is_what_was_written(tmp_path):
    options = {"model": "hub/name", "task": "mrpc", "epochs": 2.0, "teacher": "dense"}
    settings = settings_from(options, RECIPE)
    settings.write(tmp_path / "run.yaml")
    assert Settings.read(tmp_path / "run.yaml") == settings


def test_the_file_is_nested_by_who_reads_it_and_complete(tmp_path):
    settings_from({"model": "m", "task": "sst2", "max_length": 64}, RECIPE).write(tmp_path / "r")
    data = yaml.safe_load((tmp_path / "r").read_text())
    assert list(data) == ["model", "trust_remote_code", "task", "training", "recipe", "teacher"]
    task = data["task"]
    assert next(iter(task.items())) == ("kind", "classification")
    assert (task["dataset"], task["text_column"], task["max_length"]) == ("sst2", "sentence", 64)
    assert task["encoding"] == "utf-8" and "tags_column" not in task
    assert data["training"]["epochs"] == 3.0 and data["training"]["seed"] == 42
    assert data["teacher"] == {"model": None, "cache": None} and data["recipe"] == RECIPE


def test_paths_in_the_file_are_whole_and_names_are_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    settings = settings_from(
        {"model": "model", "train": "a.csv", "eval": "user/name", "teacher_cache": "cache"}, RECIPE
    )
    settings.write(Path("run.yaml"))
    data = yaml.safe_load(Path("run.yaml").read_text())
    assert data["model"] == os.path.abspath("model")
    assert data["task"]["train"] == os.path.abspath("a.csv")
    assert data["task"]["eval"] == "user/name"
    assert data["teacher"]["cache"] == os.path.abspath("cache")
    assert flat(settings.model_dump(mode="json"))["train"] == "a.csv"  # as typed, in reports


@pytest.mark.parametrize("name", ["demo", "dense", "self", "hub/name"])
def test_a_folder_that_is_called_like_a_word_is_the_word(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "/" not in name:
        Path(name).mkdir()
    settings_from({"model": "m", "teacher": name}, RECIPE).write(Path("run.yaml"))
    assert yaml.safe_load(Path("run.yaml").read_text())["teacher"]["model"] == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\ntask: sst2\nepochs: 3.0\nrecipe: {}\n", "older Sentei.*begin the run again"),
        ("model: m\ntask: {kind: tokens, flip: true}\nrecipe: {}\n", "unknown setting task.flip"),
        ("model: m\nrecipe: {}\n", "task is missing"),
        ("model: m\ntask: {}\ntraining: {clip: -1}\nrecipe: {}\n", "training.clip=-1: should be"),
        ("model: [", "not valid YAML"),
        ("3\n", "not the settings of a run"),
    ],
)
def test_files_that_are_none_are_refused_in_a_sentence(text, message, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"run\.yaml: .*{message}") as caught:
        Settings.read(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"run\.yaml: no run was begun here"):
        Settings.read(tmp_path / "run.yaml")
