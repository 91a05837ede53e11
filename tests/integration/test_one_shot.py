"""``sentei prune --epochs 0``: a model pruned without training, with all that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from sentei import cli


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(data) -> list[object]:
    return ["--train", data["train"], "--eval", data["eval"]]


@pytest.fixture(scope="module")
def dense(tiny_model, files, tmp_path_factory) -> Path:
    """A model that was fine-tuned and not pruned."""
    out = tmp_path_factory.mktemp("runs") / "dense"
    options = ["--method", "magnitude", "--sparsity", 0, "--epochs", 4, "--learning-rate", 1e-2]
    done = sentei("prune", "--model", tiny_model, *files, *options, "--out", out)
    assert done.exit_code == 0, done.output
    return out / "model"


METHODS = [
    ("magnitude", ()),
    ("wanda", ()),
    ("wanda", ("--pattern", "2:4")),
    ("obs", ()),
    ("magnitude", ("--set", "reconstruction=least_squares")),
]


@pytest.mark.parametrize(("method", "more"), METHODS, ids=[" ".join((m, *o)) for m, o in METHODS])
def test_a_run_without_training(method, more, dense, files, tmp_path):
    out = tmp_path / "run"
    options = ["--epochs", 0, "--method", method, "--sparsity", 0.5, "--calibration", 20, *more]
    done = sentei("prune", "--model", dense, *files, *options, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    pruning = report["pruning"]
    assert pruning["pruned"] == round(0.5 * pruning["prunable"])
    assert pruning["step"] == pruning["total_steps"] == 0 and not report["train"]
    assert report["dense"]["accuracy"] > 0.7 and "prune" in report["seconds"]
    assert {path.name for path in out.iterdir()} >= {"model", "recipe.yaml", "report.html"}
    assert "kind: at_once" in (out / "recipe.yaml").read_text()
    card = (out / "model" / "README.md").read_text()
    looks = method != "magnitude" or bool(more)
    assert ("by the inputs of 20 training examples" in card) == looks
    model, before = map(AutoModelForSequenceClassification.from_pretrained, (out / "model", dense))
    for site in pruning["sites"]:
        now, was = (one.get_parameter(site["name"]) for one in (model, before))
        assert int((now == 0).sum()) == site["pruned"]
        if method != "obs" and "reconstruction=least_squares" not in more:
            assert torch.equal(now[now != 0], was[now != 0])
    assert sentei("verify", out).exit_code == 0
    assert sentei("report", out).exit_code == 0
    page = (out / "report.html").read_text()
    assert "optimizer steps" not in page and "pruned without training." in page
    again = sentei("prune", "--out", out, "--resume", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["pruning"] == pruning


def test_the_same_again_is_the_same(dense, files, tmp_path):
    models = []
    for name in ("one", "two"):
        options = ["--epochs", 0, "--method", "wanda", "--out", tmp_path / name]
        assert sentei("prune", "--model", dense, *files, *options).exit_code == 0
        models.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_after_fine_tuning_in_the_same_run(tiny_model, files, tmp_path):
    out = tmp_path / "run"
    options = ["--dense-epochs", 2, "--epochs", 0, "--method", "obs", "--learning-rate", 1e-2]
    done = sentei("prune", "--model", tiny_model, *files, *options, "--out", out)
    assert done.exit_code == 0, done.output
    assert (out / "dense" / "model").is_dir()
    assert "after 2 epochs of training" in (out / "model" / "README.md").read_text()
    (out / "report.json").unlink()
    (out / "manifest.json").unlink()
    assert sentei("prune", "--out", out, "--resume").exit_code == 0


def test_inspect_says_that_nothing_is_trained(dense, files):
    options = ["--epochs", 0, "--method", "wanda", "--calibration", 16]
    shown = sentei("inspect", "--model", dense, *files, *options)
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.stdout.split())
    assert "one pruning decision without training, by the inputs of 16 examples" in said
    found = json.loads(sentei("inspect", "--model", dense, *files, *options, "--json").stdout)
    assert (found["steps"], found["updates"], found["calibration"]) == (0, 1, 16)
    assert found["memory"]["gradients"] == found["memory"]["optimizer"] == 0


@pytest.mark.parametrize("name", ["platon", "movement", "auto", "mgpp", "knowledge_aware", "leap"])
def test_methods_that_must_train_are_refused(name, dense, files, tmp_path):
    options = ["--epochs", 0, "--method", name, "--out", tmp_path / "run"]
    done = sentei("prune", "--model", dense, *files, *options)
    assert done.exit_code != 0
    said = " ".join(done.stderr.split())
    assert f"{name} cannot prune at once, without training" in said
    assert "--epochs above 0" in said and "wanda" in said
    assert not (tmp_path / "run").exists()


def test_a_head_that_nobody_trains_is_refused(tiny_model, files, tmp_path):
    options = ["--epochs", 0, "--method", "wanda", "--out", tmp_path / "run"]
    done = sentei("prune", "--model", tiny_model, *files, *options)
    assert done.exit_code != 0
    assert "has no trained head" in " ".join(done.stderr.split())
