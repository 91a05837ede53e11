"""Models as they come: of 16 bits, in folders of sentence-transformers, with code of their own."""

import builtins
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig
from transformers import BertForSequenceClassification as Classifier
from typer.testing import CliRunner

from helpers.damage import own_code, pipe, setting
from sentei import runtime
from sentei.cli import app

pytestmark = pytest.mark.usefixtures("no_pages")

CLASSES = {"num_labels": 2, "id2label": {0: "negative", 1: "positive"}}


def sentei(*arguments, code=0):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def prune(model, data, out, *more, code=0):
    files = ["--train", data["train"], "--eval", data["eval"]]
    recipe = ["--method", "magnitude", "--sparsity", "0.5", "--epochs", "1", "--batch-size", "8"]
    return sentei("prune", "--model", model, *files, *recipe, "--out", out, *more, code=code)


@pytest.fixture
def classifier(tiny_model, tmp_path):
    """A classifier with a neuron that does nothing, and its tokenizer."""
    folder = tmp_path / "classifier"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    model = Classifier(BertConfig.from_pretrained(tiny_model, **CLASSES))
    with torch.no_grad():
        block = model.bert.encoder.layer[0]
        for weights in (block.intermediate.dense.weight[:8], block.intermediate.dense.bias[:8]):
            weights.zero_()
        block.output.dense.weight[:, :8] = 0
    model.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------- 16 bits


def dtypes(folder):
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("says", ["float16", "float32", None])
def test_a_checkpoint_of_16_bits_comes_back_as_large(dtype, says, classifier, data, tmp_path):
    """Whatever its config says of itself."""
    Classifier.from_pretrained(classifier).to(dtype).save_pretrained(classifier)
    setting(dtype=says)(classifier)
    before = (classifier / "model.safetensors").stat().st_size
    out = tmp_path / "run"
    prune(classifier, data, out)
    after = (out / "model" / "model.safetensors").stat().st_size
    assert dtypes(out / "model") == {dtype} and abs(after - before) < 1000
    assert AutoModel.from_pretrained(out / "model").dtype == dtype  # the config says so
    sizes = json.loads((out / "report.json").read_text())["sizes"]
    assert sizes["dense_file"] == sizes["sparse_file"] == after
    assert sizes["packed"] == sizes["packed_bf16"] < after
    assert sentei("verify", out).count("holds") == 6
    sentei("evaluate", "--model", out)
    sentei("shrink", classifier, "--out", tmp_path / "smaller")
    assert dtypes(tmp_path / "smaller") == {dtype}


def test_another_precision_is_written_where_it_is_asked_for(classifier, data, tmp_path):
    prune(classifier, data, tmp_path / "half", "--dtype", "bf16")
    assert dtypes(tmp_path / "half" / "model") == {torch.bfloat16}
    assert "holds" in sentei("verify", tmp_path / "half")
    Classifier.from_pretrained(classifier).half().save_pretrained(classifier)
    prune(classifier, data, tmp_path / "whole", "--dtype", "fp32", "--dense-epochs", "0.5")
    assert dtypes(tmp_path / "whole" / "model") == {torch.float32}


def test_dense_training_keeps_its_digits_for_pruning(classifier, data, tmp_path):
    Classifier.from_pretrained(classifier).half().save_pretrained(classifier)
    prune(classifier, data, tmp_path / "run", "--dense-epochs", "0.5")
    assert dtypes(tmp_path / "run" / "dense" / "model") == {torch.float32}
    assert dtypes(tmp_path / "run" / "model") == {torch.float16}
    sizes = json.loads((tmp_path / "run" / "report.json").read_text())["sizes"]
    assert sizes["dense_file"] == sizes["sparse_file"]


# ------------------------------------------------------------------------- sentence-transformers


@pytest.fixture
def older(classifier, tmp_path):
    """A folder of the older layout: the model below it."""
    folder = tmp_path / "older"
    shutil.copytree(classifier, folder / "0_Transformer")
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "x.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "x.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "README.md").write_text("---\ntags:\n- x\n---\n\n# A model\n")
    return folder


def test_the_older_layout_of_sentence_transformers_is_a_model(older, data, tmp_path):
    prune(older, data, tmp_path / "run")
    files = ["--train", data["train"], "--eval", data["eval"]]
    assert "parameters are zero" in sentei("evaluate", "--model", older, *files)
    assert "FAILS" not in sentei("verify", older)
    vectors = runtime.compile(older).embed(["the film was good"])
    sentei("shrink", older, "--out", tmp_path / "small")
    for name in ("modules.json", "0_Transformer/tokenizer.json", "1_Pooling/config.json"):
        assert (tmp_path / "small" / name).read_bytes() == (older / name).read_bytes()
    assert "shrunk" in (tmp_path / "small" / "README.md").read_text()
    smaller = runtime.compile(tmp_path / "small").embed(["the film was good"])
    assert abs(vectors - smaller).max() < 1e-5
    assert "FAILS" not in sentei("verify", tmp_path / "small")


@pytest.mark.parametrize("path", ["../classifier", "/classifier", "0_Transformer/../../classifier"])
def test_no_module_is_read_from_elsewhere(path, older, data, tmp_path):
    (older / "modules.json").write_text(json.dumps([{"path": path}]))
    said = prune(older, data, tmp_path / "run", code=2)
    assert "holds no config.json; there are models in 0_Transformer, 1_Pooling below it" in said


# ---------------------------------------------------------------------------------- their own code


@pytest.fixture
def foreign(classifier, tmp_path, monkeypatch):
    own_code(classifier, tmp_path / "canary")

    def asked(*question):
        raise AssertionError(f"a question on the terminal: {question}")

    monkeypatch.setattr(builtins, "input", asked)
    return classifier


def test_code_of_a_model_is_run_by_no_verb_unasked(foreign, data, tmp_path):
    canary, out, trust = tmp_path / "canary", tmp_path / "run", "--trust-remote-code"
    files = ["--train", data["train"], "--eval", data["eval"]]
    sentence = "code of its own, which is not run unasked"
    assert sentence in prune(foreign, data, out, code=2)
    plain = tmp_path / "plain"
    shutil.copytree(foreign, plain)
    (plain / "config.json").write_text((foreign / "config.json").read_text())
    setting(model_type="bert", auto_map={}, architectures=["BertForSequenceClassification"])(plain)
    said = prune(plain, data, out, "--teacher", foreign, "--set", "distill={}", code=2)
    assert f"--teacher {foreign}" in said and sentence in said
    for verb in (
        ["inspect", "--model", foreign, *files],
        ["evaluate", "--model", foreign, *files],
        ["augment", "--model", foreign, "--train", data["train"], "--out", tmp_path / "a.jsonl"],
        ["shrink", foreign],
        ["bench", foreign],
    ):
        assert sentence in sentei(*verb, code=2)
        as_json = json.loads(sentei(*verb, "--json", code=2))
        assert sentence in as_json["error"]
    assert sentence in sentei("verify", foreign, code=1)
    assert not canary.exists() and not out.exists()

    prune(foreign, data, out, trust)
    assert {"toy_code.py", "toy_parts.py"} <= {path.name for path in (out / "model").iterdir()}
    assert "trust_remote_code=True" in (out / "model" / "README.md").read_text()
    own = AutoModelForSequenceClassification.from_pretrained(out / "model", trust_remote_code=True)
    assert type(own).__name__ == "ToyClassifier"
    canary.unlink()
    # The folder may be anybody's: its run.yaml does not speak for who evaluates it.
    assert sentence in sentei("evaluate", "--model", out, code=2) and not canary.exists()
    sentei("evaluate", "--model", out, trust)
    assert "FAILS" not in sentei("verify", out, trust)


def test_a_run_goes_on_with_the_code_it_began_with(foreign, data, tmp_path):
    out = tmp_path / "run"
    prune(foreign, data, out, "--trust-remote-code")
    shutil.rmtree(out / "model")
    (out / "report.json").unlink()
    sentei("prune", "--out", out, "--resume")
    assert (out / "model" / "toy_code.py").is_file()


# ---------------------------------------------------------------------------------------- the door


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "it is empty"),
        ("a/b/c", "no such folder"),
        ("a\\b", "no such folder"),
        ("https://huggingface.co/google/bert_tiny/tree/main", "name google/bert_tiny"),
        ("classifier/config.json", "a file; name the folder that it is in"),
        ("above", "there are models in bert-a, bert-b below it: name one"),
        ("above/bert_a", "no such folder in above either; did you mean 'bert-a'?"),
        ("nobody/nothing", "check the name"),
    ],
)
def test_a_name_that_is_no_model_is_a_sentence(name, said, classifier, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for one in ("bert-a", "bert-b"):
        shutil.copytree(classifier, tmp_path / "above" / one)
    output = prune(name, data, tmp_path / "run", code=2)
    assert f"--model {name}: " in output and said in " ".join(output.split())


def test_a_pipe_among_the_files_of_a_model_is_not_waited_for(classifier, data, tmp_path):
    pipe("tokenizer.json")(classifier)
    assert "it is no plain file" in prune(classifier, data, tmp_path / "run", code=2)
