"""Pruned upstream as a masked language model, then fine-tuned from the command with its zeros."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForMaskedLM
from typer.testing import CliRunner

import sentei as library
from sentei import cli

FAST = ["--precision", "fp32", "--epochs", 8, "--batch-size", 16, "--learning-rate", 1e-2]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def upstream(tiny_model, tmp_path_factory) -> Path:
    """A masked language model at 70 %."""
    folder = tmp_path_factory.mktemp("upstream")
    model, tokenizer = (
        BertForMaskedLM.from_pretrained(tiny_model),
        AutoTokenizer.from_pretrained(tiny_model),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner = library.Pruner(model, library.mgpp(0.7, every=2), total_steps=20, examples=160)
    pruner.attach(optimizer)
    for _ in range(20):
        words = torch.randint(5, len(tokenizer), (8, 6))
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finish()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def task(upstream, data) -> list[object]:
    return ["--model", upstream, "--train", data["train"], "--eval", data["eval"], *FAST]


def places(folder: Path, names: list[str]) -> list[torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return [model.get_parameter(name) == 0 for name in names]


def test_transfer(task, upstream, tmp_path):
    out = tmp_path / "run"
    done = sentei("prune", *task, "--freeze-masks", "--out", out)
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    names = [site["name"] for site in report["pruning"]["sites"]]
    assert len(names) == 12
    before = places(upstream, names)
    assert sum(int(zero.sum()) for zero in before) == report["pruning"]["pruned"]
    for folder in (out / "model", *out.glob("checkpoints/checkpoint-*")):
        assert all(map(torch.equal, places(folder, names), before)), folder
    assert report["dense"] is None and report["sparse"]["accuracy"] > 0.7
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    found = report["pruning"]["pruned"] / report["pruning"]["prunable"]
    assert recipe["schedule"] == {"kind": "existing", "sparsity": found}

    done = sentei("verify", out, "--sparsity", 0.699)
    assert done.exit_code == 0 and "FAILS" not in done.output, done.output
    # The recipe that was written is one that runs.
    again = tmp_path / "again"
    done = sentei("prune", *task, "--recipe", out / "recipe.yaml", "--out", again)
    assert done.exit_code == 0, done.output
    assert all(map(torch.equal, places(again / "model", names), before))


def test_inspect_says_what_is_kept(task):
    done = sentei("inspect", *task, "--freeze-masks")
    assert done.exit_code == 0, done.output
    assert "frozen_mask" in done.output and "70.0 %" in done.output


def test_a_run_cut_short_resumes_bit_for_bit(task, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = [*task, "--freeze-masks", "--checkpoints", 3]
    assert sentei("prune", *options, "--out", whole).exit_code == 0
    assert sentei("prune", *options, "--out", stopped).exit_code == 0
    (stopped / "report.json").unlink()
    newest = max(stopped.glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name[11:]))
    (newest / "trainer_state.json").unlink()  # cut short: the one before it is taken
    done = sentei("prune", "--out", stopped, "--resume")
    assert done.exit_code == 0, done.output
    a, b = (
        AutoModelForSequenceClassification.from_pretrained(folder / "model").state_dict()
        for folder in (whole, stopped)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_refusals(task, tiny_model, tmp_path):
    out = ["--freeze-masks", "--out", tmp_path / "run"]
    cases = {
        "none of the": [*task, "--model", tiny_model],
        "leave out --method platon": [*task, "--method", "platon"],
        "leave out --pattern row": [*task, "--pattern", "row"],
        "dense training leaves no zeros": [*task, "--dense-epochs", 1],
        "which is less": [*task, "--sparsity", 0.9],
    }
    for told, options in cases.items():
        done = sentei("prune", *options, *out)
        assert done.exit_code == 2 and told in done.stderr, (told, done.output)
        assert not (tmp_path / "run").exists()
