"""``sentei augment`` with a tiny masked language model, and training on what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)
from typer.testing import CliRunner

from sentei import cli
from sentei.distill.augment import replaceable
from sentei.run.augment import MaskedLM, Neighbours, whole_words
from sentei.shrink import save, shrink
from sentei.tasks.classification import Classification

pytestmark = pytest.mark.usefixtures("no_pages")

WORDS = [
    "good",
    "fine",
    "great",
    "bad",
    "poor",
    "awful",
    "film",
    "book",
    "meal",
    "un",
    "the",
    "was",
]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##bad", "##film", "7", "."]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A masked language model that knows words in whole and in pieces."""
    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    lm = BertForMaskedLM(config)
    with torch.no_grad():  # good is nearest to fine, then to great; unbad's pieces to bad
        matrix = lm.get_input_embeddings().weight
        vector = {word: matrix[PIECES.index(word)] for word in PIECES}
        vector["fine"].copy_(vector["good"] + 0.01 * vector["bad"])
        vector["great"].copy_(vector["good"] + 0.1 * vector["bad"])
        vector["un"].copy_(vector["poor"])
        vector["##bad"].copy_(vector["poor"])
    lm.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(PIECES)}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


def test_whole_words_are_not_pieces_numbers_or_signs(model):
    words = whole_words(BertTokenizer.from_pretrained(model))
    assert sorted(words.values()) == sorted(WORDS)
    assert all(PIECES[number] == word for number, word in words.items())


def test_neighbours_are_the_nearest_words(model):
    near = Neighbours(str(model), 2)
    assert near("Good") == ["fine", "great"]
    assert near("unbad")[0] == "poor"  # two pieces, both where poor is
    assert near("zebra") == []


def test_the_language_model_says_what_it_finds_likeliest(model):
    lm = MaskedLM(str(model), 4)
    text = "the film was good"
    words = replaceable(text)
    found = lm(text, words)
    plain = BertForMaskedLM.from_pretrained(model).eval()
    tokenizer = BertTokenizer.from_pretrained(model)
    for word, choices in zip(words, found, strict=True):
        masked = text.replace(word.text, "[MASK]")
        ids = tokenizer(masked, text, return_tensors="pt")
        at = ids["input_ids"][0].tolist().index(PIECES.index("[MASK]"))
        with torch.no_grad():
            order = plain(**ids).logits[0, at].argsort(descending=True).tolist()
        expected = [PIECES[i] for i in order if PIECES[i] in WORDS and PIECES[i] != word.text]
        assert choices == expected[:4]
    assert lm.knows("good") and not lm.knows("unbad") and not lm.knows("zebra")


def test_a_text_too_long_falls_back(model):
    text = " ".join(["the"] * 80 + ["good"])
    assert MaskedLM(str(model), 4)(text, replaceable(text)) == [[]]


def test_of_a_very_long_text_the_model_reads_the_beginning(model, monkeypatch):
    lm = MaskedLM(str(model), 4)
    text = " ".join(["the film was good"] * 700)
    words = replaceable(text)
    read = []
    scores = lm._scores
    monkeypatch.setattr(lm, "_scores", lambda *given: read.append(given) or scores(*given))
    found = lm(text, words)
    assert len(found) == len(words) and found[0] and found[1] and not any(found[200:])
    assert sum(len(masked) for masked, _ in read) < len(words) / 1.5
    [whole], _ = scores([text.replace("film", "[MASK]", 1)], text)
    best = [lm.words[i] for i in whole.topk(5).indices.tolist()]
    assert found[0] == [word for word in best if word != "film"][:4]


def test_a_text_longer_than_the_models_positions_falls_back(model, tmp_path):
    tokenizer = BertTokenizer.from_pretrained(model)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(
        vocab_size=len(PIECES), intermediate_size=8, max_position_embeddings=12, **sizes
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = " ".join(["good", *["the"] * 10, "film"])
    first, last = MaskedLM(str(tmp_path), 4)(text, replaceable(text))
    assert first and not last


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def train(tmp_path) -> Path:
    path = tmp_path / "in.tsv"
    path.write_text("sentence\tlabel\nthe film was good .\tyes\nthe meal was unbad\tno\n")
    return path


def test_a_file_is_written(model, train, tmp_path):
    out = tmp_path / "out.jsonl"
    options = ["--model", model, "--train", train, "--text-column", "sentence", "--replace", 0.9]
    told = run("augment", *options, "--lm", model, "--out", out, "--copies", 6)
    assert told.exit_code == 0, told.output
    found = lines(out)
    originals = [{"sentence": "the film was good .", "label": "yes"}]
    originals += [{"sentence": "the meal was unbad", "label": "no"}]
    assert all(row in found for row in originals) and len(found) > 8
    assert f"{len(found)} rows, 2 of them the originals" in told.output
    texts = [row["sentence"] for row in found]
    assert len(set(texts)) == len(texts)
    for row in found:
        words = row["sentence"].split()
        assert words[0] == "the" and words[2] == "was"
        assert (words[-1] == ".") == (row["label"] == "yes")
    again = tmp_path / "again.jsonl"
    assert run("augment", *options, "--lm", model, "--out", again, "--copies", 6).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.jsonl"
    run("augment", *options, "--lm", model, "--out", other, "--copies", 6, "--seed", 1)
    assert other.read_bytes() != out.read_bytes()
    alone = tmp_path / "alone.jsonl"
    told = run("augment", *options, "--out", alone, "--copies", 6, "--candidates", 1, "--json")
    assert json.loads(told.stdout)["rows"] == len(lines(alone))
    near = Neighbours(str(model), 1)
    likely = {word: near(word) for word in ("film", "good", "meal", "unbad")}
    words = {word for row in lines(alone) for word in row["sentence"].split()}
    assert words == {"the", "was", ".", *likely, *(word for [word] in likely.values())}
    refused = run("augment", *options, "--out", out)
    assert refused.exit_code == 2 and "it exists already" in refused.stderr


def test_pairs_are_written_and_read_again(model, tmp_path, tiny_model):
    train, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    rows = ["film good,the book was bad,0", "meal poor,the meal was fine,1"] * 2
    train.write_text("question1,question2,label\n" + "\n".join(rows) + "\n")
    done = run("augment", "--model", model, "--train", train, "--out", out, "--copies", 30)
    assert done.exit_code == 0, done.output
    found = lines(out)
    assert set(found[0]) == {"sentence1", "sentence2", "label"}
    for label, first, second in (("0", "film", "book"), ("1", "meal", "meal")):
        mine = [row for row in found if row["label"] == label]
        assert any(not row["sentence1"].startswith(first) for row in mine)
        assert any(row["sentence2"].split()[1] != second for row in mine)
    looked = run(
        "inspect", "--model", tiny_model, "--train", out, "--eval", train,
        "--text-column", "sentence1", "--pair-column", "sentence2", "--json",
    )  # fmt: skip
    assert "question1" in json.loads(looked.stdout)["error"]  # the evaluation file's own columns
    short = ["--set", "schedule.every=1", "--set", "score.window=1", "--epochs", 40]
    looked = run("inspect", "--model", tiny_model, "--train", out, *short, "--json")
    assert json.loads(looked.stdout)["labels"].keys() == {"0", "1"}, looked.output


def test_a_file_without_a_header_is_read_with_the_same_options(model, tmp_path):
    train, out = tmp_path / "in.tsv", tmp_path / "out.jsonl"
    train.write_text("a\tno\tx\tthe film was bad\nb\tyes\ty\tthe meal was good\n")
    options = ["--no-header", "--text-column", 4, "--label-column", 2]
    done = run("augment", "--model", model, "--train", train, *options, "--out", out)
    assert done.exit_code == 0, done.output
    columns = {"text_column": "4", "label_column": "2"}
    examples = Classification(train=out, header=False, **columns).load_training()
    assert examples.texts[0] == "the film was bad" and examples.label_names == ("no", "yes")
    assert len(examples.texts) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "out.csv"], "name a .jsonl file"),
        (["--out", "out.jsonl", "--lm", "./missing"], "--lm ./missing: no such folder"),
        (["--out", "out.jsonl", "--text-column", "sentense"], "sentense"),
        (["--out", "out.jsonl", "--train", "missing.tsv"], "missing.tsv"),
    ],
)
def test_bad_options(options, message, model, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--model", model, "--train", train, "--text-column", "sentence"]
    done = run("augment", *given, *options)
    assert done.exit_code == 2 and message in done.stderr, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"in.tsv"}


def test_a_model_without_a_language_models_head(tiny_model, train, tmp_path):
    given = ["--lm", tiny_model, "--train", train, "--text-column", "sentence"]
    done = run("augment", *given, "--out", tmp_path / "out.jsonl")
    assert done.exit_code == 2 and "name a masked language model" in done.stderr


def shrunk(folder: Path, model: PreTrainedModel) -> Path:
    """The model with fewer neurons in its first block alone."""
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[:, :4] = 0
    save(shrink(model)[0], folder)
    return folder


def test_a_shrunk_model_is_loaded_with_its_loader(model, train, tmp_path):
    files = ["--train", train, "--text-column", "sentence", "--out", tmp_path / "out.jsonl"]
    small = shrunk(tmp_path / "small", BertForMaskedLM.from_pretrained(model))
    other = shrunk(tmp_path / "other", BertForSequenceClassification.from_pretrained(model))
    for folder in (small, other):
        BertTokenizer.from_pretrained(model).save_pretrained(folder)
    refused = run("augment", "--model", model, "--lm", other, *files)
    assert refused.exit_code == 2, refused.output
    assert "a shrunk BertForSequenceClassification is no masked language model" in refused.stderr
    done = run("augment", "--model", other, "--lm", small, *files)
    assert done.exit_code == 0, done.output
    (small / "shrink.json").unlink()
    (tmp_path / "out.jsonl").unlink()
    for options in (["--lm", small], ["--model", small]):
        refused = run("augment", "--model", model, *options, *files)
        assert refused.exit_code == 2 and "cannot be loaded" in refused.stderr, refused.output
