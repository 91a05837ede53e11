"""The card beside a run's model: what the hub reads of it, and what stays out of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from sentei import cli, serialization, shrink
from sentei import report as reports
from sentei.run.card import write_run_card
from sentei.run.prepare import prepare
from sentei.run.settings import Settings

FAST = ["--precision", "fp32", "--batch-size", 16, "--set", "schedule.every=2"]


def sentei(*arguments: object):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def run(tiny_model, data, tmp_path_factory) -> Path:
    """A run with dense training and a teacher."""
    out = tmp_path_factory.mktemp("runs") / "films"
    options = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    options += ["--epochs", 2, "--dense-epochs", 1, "--learning-rate", 1e-2, *FAST]
    sentei("prune", *options, "--set", "score.window=2", "--sparsity", 0.5, "--out", out)
    return out


def test_the_hub_reads_the_card(run):
    report = json.loads((run / "report.json").read_text())
    card = ModelCard.load(run / "model" / REPOCARD_NAME)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.tags == ["sentei", "pruning", "sparsity", "auto", "distillation"]
    assert card.data.metrics == ["accuracy", "f1"]
    assert card.data.base_model is card.data.language is card.data.license is None
    assert card.data.datasets is None
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {name: report["sparse"][name] for name in ("accuracy", "f1")}
    [result, _] = card.data.eval_results
    assert (result.task_type, result.dataset_name) == ("text-classification", "train")


def test_a_reader_finds_what_was_done(run):
    report, card = reports.read(run), ModelCard.load(run / "model" / REPOCARD_NAME)
    pruning = report.pruning
    assert f"{pruning.sparsity:.2%} of the {pruning.prunable:,} prunable weights" in card.text
    assert f"{pruning.sparsity_all:.2%} of all {pruning.parameters:,} parameters" in card.text
    assert report.dense is not None
    row = f"| accuracy | {report.dense['accuracy']:.4f} | {report.sparse['accuracy']:.4f} |"
    assert row in card.text
    assert "https://arxiv.org/abs/2206.12562" in card.text and "the dense model" in card.text
    recipe = card.text.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(recipe) == yaml.safe_load((run / "recipe.yaml").read_text())
    assert serialization.load(yaml.safe_load(recipe)).method == "auto"
    assert all(f"{name} {report.environment[name]}" in card.text for name in ("sentei", "torch"))


def test_its_lines_load_the_model(run, monkeypatch):
    text = (run / "model" / REPOCARD_NAME).read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    names: dict[str, object] = {}
    exec(code.replace('"NAME"', repr(str(run / "model"))), names)
    assert type(names["model"]).__name__ == "BertForSequenceClassification"
    assert names["tokenizer"]("good")["input_ids"]


def test_an_uploaded_folder_brings_it(run):
    folder = run / "model"
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    assert REPOCARD_NAME in filter_repo_objects(paths, ignore_patterns=DEFAULT_IGNORE_PATTERNS)


def test_it_names_no_folder_of_this_machine(run, tiny_model, data):
    text = (run / "model" / REPOCARD_NAME).read_text()
    assert not any(str(Path(path).parent) in text for path in (run, tiny_model, data["train"]))


def test_a_resumed_run_writes_it_too(run, tmp_path):
    out = tmp_path / "films"
    shutil.copytree(run, out)
    card = (out / "model" / REPOCARD_NAME).read_text()
    shutil.rmtree(out / "model")
    (out / "report.json").unlink()
    sentei("prune", "--out", out, "--resume")
    assert (out / "model" / REPOCARD_NAME).read_text() == card


def test_names_of_the_hub_are_linked(run, tmp_path):
    prepared = prepare(Settings.read(run / "run.yaml"))
    task = prepared.corpus.task.model_copy(update={"dataset": "sst2", "train": None, "eval": None})
    settings = prepared.settings.model_copy(update={"model": "user/some-bert"})
    corpus = dataclasses.replace(prepared.corpus, task=task)
    prepared = dataclasses.replace(prepared, settings=settings, corpus=corpus)
    report = reports.read(run).model_copy(update={"model": "user/some-bert", "task": "sst2"})
    write_run_card(prepared, report, tmp_path)
    data = ModelCard.load(tmp_path / REPOCARD_NAME).data
    assert data.base_model == "user/some-bert" and data.datasets == ["nyu-mll/glue"]
    result = data.eval_results[0]
    where = (result.dataset_type, result.dataset_config, result.dataset_split)
    assert where == ("nyu-mll/glue", "sst2", "validation")


@pytest.fixture(scope="module")
def neurons(run, data, tmp_path_factory) -> Path:
    """A run that prunes whole neurons."""
    out = tmp_path_factory.mktemp("runs") / "neurons"
    options = ["--model", run / "dense", "--train", data["train"], "--eval", data["eval"]]
    options += ["--method", "magnitude", "--pattern", "neuron", *FAST]
    sentei("prune", *options, "--sparsity", 0.5, "--epochs", 1, "--out", out)
    return out


@pytest.mark.parametrize("stock", [False, True])
def test_a_shrunk_model_says_so(neurons, tmp_path, stock):
    sentei("shrink", neurons, "--out", tmp_path / "small", *(["--stock"] if stock else []))
    card = ModelCard.load(tmp_path / "small" / REPOCARD_NAME)
    before = ModelCard.load(neurons / "model" / REPOCARD_NAME)
    assert card.data.tags == [*before.data.tags, "shrunk"]
    assert card.data.eval_results == before.data.eval_results
    assert "## Shrunk" in card.text and "neurons. Of " in card.text
    plain = not (tmp_path / "small" / "shrink.json").is_file()
    assert ("shrink.load(folder)" in card.text) is not plain
    assert (".from_pretrained(folder)" in card.text.partition("\nmodel = ")[2][:60]) is plain
    loaded = shrink.load(tmp_path / "small")
    assert isinstance(loaded, type(AutoModelForSequenceClassification.from_config(loaded.config)))


def test_a_model_without_a_card_is_shrunk_without_one(neurons, tmp_path):
    shutil.copytree(neurons / "model", tmp_path / "model")
    (tmp_path / "model" / REPOCARD_NAME).unlink()
    sentei("shrink", tmp_path / "model", "--out", tmp_path / "small")
    assert not (tmp_path / "small" / REPOCARD_NAME).exists()
