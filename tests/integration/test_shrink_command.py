"""``sentei shrink`` as users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import sentei
from sentei import cli


def command(*arguments: object):
    return CliRunner().invoke(cli.app, ["shrink", *map(str, arguments)])


@pytest.fixture
def run(tiny_model, tmp_path) -> Path:
    """The folder of a run, whose model has a head and ten neurons of every block at zero."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, 4:14] = 0
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder.parent


def logits(model, folder: Path) -> torch.Tensor:
    inputs = AutoTokenizer.from_pretrained(folder)("the film was good", return_tensors="pt")
    return model(**inputs).logits


def test_a_run_becomes_a_smaller_model(run, tmp_path):
    shown = command(run)
    assert shown.exit_code == 0 and "Plain from_pretrained loads it." in shown.output
    assert "64" in shown.output and "44" in shown.output and not (tmp_path / "out").exists()

    out = tmp_path / "out"
    done = command(run, "--out", out, "--measure", "--length", 8, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["removed"], facts["stock"], facts["out"]) == (20, True, str(out))
    assert facts["latency"]["before"] > 0 and facts["latency"]["length"] == 8
    smaller = AutoModelForSequenceClassification.from_pretrained(out)
    assert smaller.config.intermediate_size == 22
    before = AutoModelForSequenceClassification.from_pretrained(run / "model")
    torch.testing.assert_close(logits(smaller, out), logits(before, out))

    again = command(out, "--out", tmp_path / "again")
    assert again.exit_code == 0 and "Nothing to remove" in again.output
    assert not (tmp_path / "again").exists()


def test_a_model_that_needs_the_loader_says_so(run, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.output.dense.weight[:, :8] = 0
    model.save_pretrained(run / "model")
    out = tmp_path / "out"
    done = command(run / "model", "--out", out)
    assert done.exit_code == 0
    assert "Load it with sentei.shrink.load: blocks differ, and num_attention_heads" in done.output
    smaller = sentei.shrink.load(out)
    assert smaller.bert.encoder.layer[1].attention.self.num_attention_heads == 1
    torch.testing.assert_close(logits(smaller, out), logits(model, out))


def test_errors_are_one_sentence(run, tmp_path):
    missing = command(tmp_path / "nowhere")
    assert missing.exit_code == 2 and "nowhere: no such folder" in missing.stderr
    taken = command(run, "--out", run)
    assert taken.exit_code == 2 and "is not empty: name a new or empty folder" in taken.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = command(empty)
    assert bare.exit_code == 2 and "holds no config.json" in bare.stderr


def test_verify_says_that_stock_transformers_refuses_the_shapes(run, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.zero_()
    model.save_pretrained(run / "model")
    assert command(run, "--out", tmp_path / "out").exit_code == 0
    checked = CliRunner().invoke(cli.app, ["verify", str(tmp_path / "out")])
    assert checked.exit_code == 1
    assert "FAILS  plain transformers loads it unchanged" in checked.output
