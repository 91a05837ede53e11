"""Pruned upstream as a masked language model, then fine-tuned from the command with its zeros."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    GPT2Config,
    GPT2Model,
    ViTConfig,
    ViTModel,
)
from typer.testing import CliRunner

from helpers.kinds import masked_text
from sentei import cli, serialization
from sentei.methods.frozen_mask import frozen_mask
from sentei.run.options import settings_from
from sentei.run.prepare import prepare

pytestmark = pytest.mark.usefixtures("no_pages")

SMALL = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
ENDS = dict(vocab_size=20, bos_token_id=0, eos_token_id=0)
FAST = ["--precision", "fp32", "--epochs", 8, "--batch-size", 16, "--learning-rate", 1e-2]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def upstream(tiny_model, tmp_path_factory) -> Path:
    """The run of a masked language model at 70 %."""
    folder = tmp_path_factory.mktemp("upstream")
    options = masked_text(folder, tiny_model)
    pruned = ["--method", "mgpp", "--sparsity", 0.7, "--set", "schedule.every=2"]
    done = sentei("prune", *options, *pruned, "--precision", "fp32", "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


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
    before = places(upstream / "model", names)
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


def test_the_encoder_carries_over_and_the_heads_do_not(upstream, data):
    given = {"model": str(upstream), "train": data["train"], "eval": data["eval"]}
    prepared = prepare(settings_from(given, serialization.to_dict(frozen_mask())))
    taught = BertForMaskedLM.from_pretrained(upstream / "model").bert.state_dict()
    ours = prepared.model.base_model.state_dict()
    assert all(torch.equal(ours[name], taught[name]) for name in taught)
    assert {name.partition(".")[0] for name in ours.keys() - taught.keys()} == {"pooler"}
    assert not prepared.trained_head and prepared.model.classifier.weight.all()


def test_the_upstream_run_is_measured_and_goes_on_as_what_it_is(upstream, tmp_path):
    measured = sentei("evaluate", "--model", upstream, "--json")
    report = json.loads((upstream / "report.json").read_text())
    assert json.loads(measured.stdout)["metrics"] == pytest.approx(report["sparse"])
    assert set(report["sparse"]) == {"loss", "perplexity", "accuracy"}
    assert report["pruning"]["pruned"] == round(0.7 * report["pruning"]["prunable"])
    assert not any("cls." in site["name"] for site in report["pruning"]["sites"])
    refused = sentei("bench", upstream, "--json")
    assert refused.exit_code == 2 and "--kind masked-text: sentei bench" in refused.stdout
    card = (upstream / "model" / "README.md").read_text()
    assert "fill-mask" in card and "AutoModelForMaskedLM.from_pretrained" in card


def test_a_checkpoint_without_a_head_for_masked_tokens_gets_one_and_is_told(tiny_model, tmp_path):
    options = [*masked_text(tmp_path, tiny_model), "--epochs", 4, "--sparsity", 0.5]
    told = sentei("inspect", *options, "--json")
    assert f"--model {tiny_model} brings no head that guesses masked tokens" in told.stdout


def test_architectures_without_such_a_head_are_refused_before_anything_is_read(tmp_path):
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, **ENDS)).save_pretrained(tmp_path / "gpt2")
    for family in ("vit", "gpt2"):
        given = ["--model", tmp_path / family, "--train", "missing.txt", "--sparsity", 0.5]
        done = sentei("inspect", "--kind", "masked-text", *given)
        told = f"a {family} model is none for --kind masked-text: transformers has no Auto"
        assert done.exit_code == 2 and told in " ".join(done.stderr.split()), done.output


def test_upstream_goes_on_bit_for_bit_in_the_middle_of_an_epoch(tiny_model, tmp_path):
    options = [*masked_text(tmp_path, tiny_model), "--sparsity", 0.5, "--set", "schedule.every=2"]
    options += ["--set", "score.window=2", "--epochs", 2, "--checkpoints", 3, "--whole-words"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert sentei("prune", *options, "--precision", "fp32", "--out", whole).exit_code == 0
    shutil.copytree(whole, stopped)
    first, *others = sorted(stopped.glob("checkpoints/*"), key=lambda path: int(path.name[11:]))
    steps = json.loads((whole / "report.json").read_text())["pruning"]["total_steps"]
    assert int(first.name[11:]) % (steps // 2) and others
    for folder in (*others, stopped / "model"):
        shutil.rmtree(folder)
    (stopped / "report.json").unlink()
    done = sentei("prune", "--out", stopped, "--resume")
    assert done.exit_code == 0, done.output
    a, b = (
        BertForMaskedLM.from_pretrained(folder / "model").state_dict()
        for folder in (whole, stopped)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


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
