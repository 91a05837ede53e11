"""``sentei bench`` as users meet it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from sentei import cli, report
from sentei.run.options import settings_from

QUICK = ("--engine", "torch", "--engine", "shrunk", "--rounds", 1, "--batch", 2)


def command(*arguments: object):
    return CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])


@pytest.fixture
def run(tiny_model, data, tmp_path) -> Path:
    """The folder of a run, whose model has twelve neurons of every block at zero."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}
    )
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, 4:16] = 0
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    options = {"model": str(tiny_model), "train": data["train"], "eval": data["eval"]}
    settings_from(options, {}).write(folder.parent / "run.yaml")
    return folder.parent


def test_a_run_is_timed_on_its_own_data_and_each_engine_is_scored(run):
    done = command(run, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert [one["length"] for one in facts["workloads"]] == ["64", "data"]
    engines = {(one["engine"], one["precision"]) for one in facts["engines"]}
    assert engines == {("torch", "fp32"), ("torch", "bf16"), ("shrunk", "fp32")}
    assert all(0 <= one["metrics"]["accuracy"] <= 1 for one in facts["engines"])
    assert "loss" not in facts["engines"][0]["metrics"]
    exact = [one for one in facts["speeds"] if one["precision"] == "fp32"]
    assert all(one["difference"] < 1e-5 for one in exact)
    assert report.read_speed(run).model_dump(mode="json") == facts
    assert (run / "bench.md").is_file() and facts["baseline"] == "torch fp32"


def test_words_end_what_is_printed(run):
    done = command(run, *QUICK, "--length", 8, "--no-score")
    assert done.exit_code == 0, done.output
    assert "Batch 2, 8 tokens" in done.output and "accuracy" not in done.output
    assert "Fastest throughout: " in done.output and "bench.json" in done.output


def test_a_model_of_no_run_is_timed_on_drawn_tokens_and_nothing_is_written(run, tmp_path):
    folder = tmp_path / "alone"
    shutil.copytree(run / "model", folder)
    before = {*folder.iterdir()}
    done = command(folder, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert [one["length"] for one in facts["workloads"]] == ["64"] and facts["metric"] is None
    assert {*folder.iterdir()} == before and not (tmp_path / "bench.json").exists()

    done = command(folder, *QUICK, "--length", 8, "--out", tmp_path / "out")
    assert done.exit_code == 0 and (tmp_path / "out" / "bench.json").is_file()


def test_data_can_be_named_for_any_model(run, data, tmp_path):
    folder = tmp_path / "alone"
    shutil.copytree(run / "model", folder)
    done = command(folder, *QUICK, "--eval", data["eval"], "--length", "sorted", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["metric"] == "accuracy"
    assert facts["workloads"][0]["tokens"] < facts["workloads"][0]["sequences"] * 16


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--engine", "trch"), "--engine trch; did you mean 'torch'?"),
        (("--length", "65"), "the model takes at most 64 tokens"),
        (("--kind", "summaries"), "--kind summaries: sentei bench measures encoders"),
        (("--kind", "answers"), "has no head for --kind answers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(run, arguments, says):
    done = command(run, *arguments)
    assert done.exit_code == 2 and says in " ".join(done.output.split())


def test_the_page_of_a_run_shows_its_speeds(run, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from unit.report.test_report import realistic

    report.write(realistic(), run)
    assert "Speed</h2>" not in (run / "report.html").read_text()
    assert command(run, *QUICK, "--no-score").exit_code == 0
    page = (run / "report.html").read_text()
    assert "<h2>Speed</h2>" in page and "Batch 2, texts as they come" in page
