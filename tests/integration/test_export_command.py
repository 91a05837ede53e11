"""``sentei export`` as users meet it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
)
from typer.testing import CliRunner

from helpers.kinds import TASKS
from sentei import cli, pack
from sentei.models.outputs import outputs
from sentei.run.export import trial_of
from sentei.run.options import settings_from

pytestmark = pytest.mark.usefixtures("no_pages")


def command(*arguments: object):
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


@pytest.fixture
def run(tiny_model, data, tmp_path) -> Path:
    """The folder of a run."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}
    )
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight.view(-1)[::2] = 0
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    options = {"model": str(tiny_model), "train": data["train"], "eval": data["eval"]}
    settings_from(options, {}).write(folder.parent / "run.yaml")
    return folder.parent


def test_a_run_is_compared_and_calibrated_on_its_own_data(run):
    for package in ("onnxscript", "openvino", "nncf"):
        pytest.importorskip(package)
    done = command(run, "--to", "openvino", "--int8", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["out"] == str(run / "openvino-int8") and facts["precision"] == "int8"
    assert {*facts["files"]} == {"openvino_model.bin", "openvino_model.xml"}
    assert facts["agreement"]["examples"] == facts["agreement"]["answers"] == 40
    assert 0 < facts["agreement"]["relative"] < facts["tolerance"] == 0.3
    assert "eval.csv" in facts["inputs"]
    again = command(run, "--to", "openvino", "--int8")
    assert again.exit_code == 2 and "is not empty" in again.output


def test_a_packed_model_of_no_run_is_compared_on_random_tokens(run, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = tmp_path / "packed"
    pack.pack(run / "model", folder, values="fp32", embeddings="fp32", compress=False)
    done = command(folder, "--to", "onnx", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Outputs on random tokens: " in done.output and "24 of 24 the same" in done.output
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and not config["use_cache"]
    texts = AutoTokenizer.from_pretrained(tmp_path / "out")(["the film was good"])
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert {one.name for one in session.get_inputs()} == {*texts}
    [logits] = session.run(None, dict(texts))
    ours = AutoModelForSequenceClassification.from_pretrained(run / "model")
    wanted = outputs(ours.eval(), {name: torch.tensor(one) for name, one in texts.items()})
    torch.testing.assert_close(torch.from_numpy(logits), wanted["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "packages", "says"),
    [
        (("--to", "onnx"), ("onnxscript",), "--out is missing: "),
        (("--to", "onyx"), (), "--to onyx; did you mean 'onnx'? Choose from onnx, openvino."),
        (
            ("--to", "openvino", "--int8", "--out", "x"),
            ("nncf",),
            "there are none; give",
        ),
    ],
    ids=["no place", "no format", "no data"],
)
def test_what_cannot_be_is_refused_in_a_sentence(run, tmp_path, arguments, packages, says):
    for package in packages:
        pytest.importorskip(package)
    folder = tmp_path / "alone"
    shutil.copytree(run / "model", folder)
    done = command(folder, *arguments)
    assert done.exit_code == 2 and says in " ".join(done.output.split())


@pytest.mark.parametrize("kind", ["summaries", "language"])
def test_texts_are_tried_on_the_data_of_their_task(kind, tiny_model, tmp_path):
    flags = [str(one) for one in TASKS[kind](tmp_path, tiny_model)]
    pairs = zip(flags[::2], flags[1::2], strict=True)
    options = {flag[2:].replace("-", "_"): value for flag, value in pairs}
    writes = kind == "summaries"
    model_class = AutoModelForSeq2SeqLM if writes else LlamaForCausalLM
    model = model_class.from_pretrained(options["model"]).eval()
    trial = trial_of(model, options["model"], settings_from(options, {}))
    for batch in (trial.batches[0], trial.ones[0]):
        assert "input_ids" in batch and "labels" not in batch
        assert ("decoder_input_ids" in batch) == writes
        assert torch.isfinite(outputs(model, batch)["logits"]).all()
    assert len(trial.batches[0]["input_ids"]) == 8 and len(trial.ones[0]["input_ids"]) == 1
