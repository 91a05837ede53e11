"""``sentei pack``, ``unpack`` and what other verbs do with a packed model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from helpers.packing import check_same
from sentei import cli
from sentei.models.card import CARD

pytestmark = pytest.mark.usefixtures("no_pages")

BRIEF = ["--method", "magnitude", "--sparsity", 0.875, "--precision", "fp32", "--epochs", 1]
BRIEF += ["--set", "schedule.every=1"]


def command(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def done(*arguments: object):
    found = command(*arguments)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture(scope="module")
def run(tiny_model, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    given = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    done("prune", *given, *BRIEF, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def packed(run) -> Path:
    """The run's model, packed bit for bit into many files."""
    exact = ["--values", "fp32", "--embeddings", "fp32", "--shard", "4KB"]
    facts = json.loads(done("pack", run, *exact, "--json").stdout)
    assert facts["out"] == str(run / "packed") and facts["bytes"] < facts["bytes_before"]
    return run / "packed"


def test_a_run_is_packed_beside_its_model(run, packed):
    here, there = (
        AutoModelForSequenceClassification.from_pretrained(folder)
        for folder in (run / "model", packed)
    )
    check_same(here, there)
    assert len(list(packed.glob("*.safetensors"))) > 2
    card = (packed / CARD).read_text()
    assert "\nimport sentei  # reads packed weights\n" in card and "## Packed" in card
    here, there = (
        json.loads(done("evaluate", "--model", folder, "--json").stdout)
        for folder in (run / "model", packed)
    )
    assert here.pop("model") != there.pop("model") and here == there


def test_the_report_says_how_large_it_is(run, packed):
    sizes = json.loads((run / "report.json").read_text())["sizes"]
    data = 0
    for file in packed.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            data += sum(tensors.get_tensor(name).nbytes for name in tensors.keys())
    assert abs(data - sizes["packed"]) < 64 * 41  # names, of 41 tensors


def test_inspect_says_how_large_it_will_be(run, tiny_model, data):
    given = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    said = json.loads(done("inspect", *given, *BRIEF, "--json").stdout)["sizes"]
    sizes = json.loads((run / "report.json").read_text())["sizes"]
    assert said.keys() == sizes.keys()
    for name in ("packed", "packed_bf16", "packed_int8"):
        assert abs(said[name] - sizes[name]) < 0.05 * sizes[name]
    shown = " ".join(done("inspect", *given, *BRIEF).output.split())
    assert "packed in int8, about" in shown


def test_its_claims_are_the_runs(run, packed):
    checks = json.loads(done("verify", packed, "--sparsity", 0.875, "--json").stdout)
    claims = [check["claim"] for check in checks]
    assert claims[0] == "every tensor is as it was packed"
    assert "zeros are where the report says, in each of 12 matrices" in claims
    assert claims[-1] == "plain transformers, with sentei imported, loads it unchanged"
    plain = json.loads(done("verify", run, "--json").stdout)
    assert {check["claim"] for check in plain} < {*claims, plain[-1]["claim"]}


def test_a_flipped_bit_fails(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "harmed")
    file = max((tmp_path / "harmed").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = command("verify", tmp_path / "harmed")
    assert found.exit_code == 1
    first, *rest = found.stdout.splitlines()[1:]
    assert first.startswith("FAILS  every tensor is as it was packed: ")
    assert file.name in first and "checksum differs" in first
    assert rest[-1].startswith("FAILS  plain transformers, with sentei imported, loads it")
    refused = command("unpack", tmp_path / "harmed", "--out", tmp_path / "out")
    assert refused.exit_code == 2 and file.name in refused.stderr
    assert not (tmp_path / "out").exists()


def test_unpacked_it_is_what_it_was(run, packed, tmp_path):
    shown = done("unpack", run, "--out", tmp_path / "plain")
    assert "Plain from_pretrained loads it." in shown.output
    before, after = (
        load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "plain")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    names = [{path.name for path in at.iterdir()} for at in (run / "model", tmp_path / "plain")]
    assert names[0] == names[1]
    for name in ("config.json", CARD):
        assert (tmp_path / "plain" / name).read_text() == (run / "model" / name).read_text()


def test_what_is_printed(run, tmp_path):
    shown = done("pack", run / "model", "--values", "int8", "--out", tmp_path / "small").output
    assert "sparse" in shown and "int8" in shown and "embeddings" in shown and "bf16" in shown
    assert "files of weights" in shown and "Rounding changed" in shown
    assert f"Written to {tmp_path / 'small'}. After `import sentei`, plain" in shown.replace(
        "\n", " "
    )
    assert "No number was rounded." in done(
        "pack", run, "--values", "fp32", "--embeddings", "fp32", "--out", tmp_path / "exact",
        "--no-compress",
    ).output  # fmt: skip


def test_a_packed_model_can_be_pruned_further(packed, data, tmp_path):
    given = ["--train", data["train"], "--eval", data["eval"]]
    found = done("prune", "--model", packed, *given, *BRIEF, "--out", tmp_path / "further")
    config = json.loads((tmp_path / "further" / "model" / "config.json").read_text())
    assert "quantization_config" not in config, found.output
    done("verify", tmp_path / "further", "--sparsity", 0.875)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["pack", "{run}"], "is not empty: name a new or empty folder"),
        (["pack", "{run}/model"], "--out is missing"),
        (["pack", "{packed}", "--out", "{out}"], "it is packed already"),
        (["pack", "{out}", "--out", "{out}"], "no such folder"),
        (["pack", "{run}", "--out", "{out}", "--values", "int4"], "must be fp32, bf16, fp16 or"),
        (["pack", "{run}", "--out", "{out}", "--shard", "much"], "must be a number of bytes"),
        (["unpack", "{run}/model", "--out", "{out}"], "it holds no packed model"),
        (["unpack", "{out}", "--out", "{out}"], "no such folder"),
    ],
    ids=["full", "no place", "packed", "nowhere", "kind", "shard", "plain", "unpack nowhere"],
)
def test_errors_are_one_sentence(arguments, message, run, packed, tmp_path):
    out = tmp_path / "out"
    found = command(*(one.format(run=run, packed=packed, out=out) for one in arguments))
    assert found.exit_code == 2 and message in found.stderr, found.output
    assert len(found.stderr.strip().splitlines()) == 1 and not out.exists()
