"""Flat names and nested places: one for each setting, as the declarations say."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentei.run.options import OptionError, flat, names_of, places, settings_from, written
from sentei.run.settings import Teaching, Training
from sentei.tasks.source import CorpusSource

OPTIONS = {
    "model": "m",
    "task": "squad",
    "train": Path("train.json"),
    "doc_stride": 64,
    "seed": 7,
    "teacher": "self",
    "teacher_cache": Path("cache"),
}


def test_flat_and_nested_are_the_same():
    settings = settings_from(OPTIONS, {"method": "x"})
    assert settings.task.label == "answers" and settings.task.doc_stride == 64
    assert (settings.training.seed, settings.teacher.model) == (7, "self")
    again = flat(settings.model_dump())
    assert OPTIONS.items() <= again.items()
    assert settings_from(again, settings.recipe) == settings


def test_every_setting_has_one_place_and_a_description():
    known = places()
    spots = [(place.owner, place.field) for place in known.values()]
    assert len(set(spots)) == len(spots)
    assert all(place.info.description for place in known.values())
    assert "recipe" not in known  # --method, --recipe and --set spell it


def test_who_reads_a_setting_follows_from_its_declaration():
    assert names_of(CorpusSource) == ("task", "train", "eval", "holdout")
    assert names_of(Teaching) == ("teacher", "teacher_cache")
    assert {name for name, place in places().items() if place.owner == "training"} == {
        *names_of(Training)
    }
    assert places()["flip"].tasks == ("images",)
    assert places()["label_column"].tasks == ("classification", "images", "embeddings")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1.0}, "--epochs -1.0: should be greater than or equal to 0"),
        ({"max_length": 3}, "--max-length 3: should be greater than or equal to 4"),
        ({"precision": "int8"}, "--precision int8: should be 'auto', 'fp32', 'bf16' or 'fp16'"),
        ({"epochs": float("inf")}, "--epochs inf: should be a finite number"),
        ({"epochs": float("nan")}, "--epochs nan: should be"),
        ({"epochs": 1e300}, "--epochs 1e+300: should be less than or equal to 1000000"),
        ({"dense_epochs": 1e7}, "--dense-epochs 10000000.0: should be less than or equal to"),
        ({"batch_size": 10**400}, "should be at most 1e15 in size"),
        ({"max_length": 10**16}, "--max-length 10000000000000000: should be at most 1e15 in size"),
        ({"seed": 2**32}, "--seed 4294967296: should be less than 4294967296"),
        ({"kind": "summaries", "num_beams": 10**9}, "--num-beams 1000000000: should be less"),
        ({"kind": "summaries", "max_new_tokens": 10**9}, "--max-new-tokens 1000000000: should be"),
        ({"weight_decay": 1e20}, "--weight-decay 1e+20: should be at most 1e15 in size"),
        ({"precision": "x" * 10**6}, "should be 'auto'"),
        ({"x" * 10**6: 1}, "there is no setting 'xxx"),
        ({"epohcs": 1}, "there is no setting 'epohcs'; did you mean 'epochs'?"),
        ({"task": "mprc"}, "there is no task 'mprc'; did you mean 'mrpc'?"),
        ({"pair_column": "b"}, "--pair-column needs --text-column beside it."),
    ],
)
def test_what_does_not_fit_is_named_by_its_option(options, message):
    with pytest.raises(OptionError) as caught:
        settings_from({"model": "m", **options}, {})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 and len(caught.value.as_setting) < 500


def test_an_option_is_compared_as_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    assert written("train", Path("a.csv")) == str(tmp_path / "a.csv")
    assert written("model", "model") == str(tmp_path / "model")
    assert written("model", "hub/name") == "hub/name"
    assert written("epochs", 2.0) == 2.0
