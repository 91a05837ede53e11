"""Models and data that do not fit each other as they seem to."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from typer.testing import CliRunner

from sentei import auto, cli, magnitude, serialization
from sentei.records import PruningReport, SiteRecord, UnitsRecord
from sentei.run.options import settings_from
from sentei.run.prepare import prepare
from sentei.run.run import prune
from sentei.run.settings import Settings
from sentei.run.training import Interrupted
from sentei.run.verify import _claims
from sentei.tasks.classification import Classification

pytestmark = pytest.mark.usefixtures("no_pages")

FAST = ["--set", "schedule.every=2", "--set", "score.window=2", "--precision", "fp32"]


def sentei(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def settings(model: Path, data: dict[str, Path], **changes: object) -> Settings:
    recipe = serialization.to_dict(auto(every=2, window=2, cooldown=0.4))
    files = {"train": data["train"], "eval": data["eval"]}
    return settings_from({"model": str(model), **files, **changes}, recipe)


def classifier(tiny_model: Path, folder: Path, names: list[str]) -> Path:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=len(names))
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("change", ["prefix", "shape"])
def test_a_model_whose_body_is_not_in_its_files_is_refused(change, tiny_model, data, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", ["negative", "positive"])
    weights = load_file(folder / "model.safetensors")
    if change == "prefix":
        weights = {f"module.{name}": weight for name, weight in weights.items()}
    else:
        name = "bert.encoder.layer.1.intermediate.dense.weight"
        weights[name] = weights[name][:8].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights, bert\..* the first, are not in its files"):
        prepare(settings(folder, data))


@pytest.mark.parametrize(
    ("names", "trained"),
    [
        (["negative", "positive"], True),
        (["POSITIVE", "Negative"], True),
        (["LABEL_0", "LABEL_1"], True),
        (["ham", "spam"], False),
    ],
)
def test_a_head_of_other_classes_is_not_one_for_these(names, trained, tiny_model, data, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", names)
    prepared = prepare(settings(folder, data))
    assert prepared.trained_head is trained and (prepared.teacher is not None) is trained
    assert ("has the classes ham, spam, and" in prepared.untaught) is not trained
    unnamed = "does not name its classes: taken to be negative, positive, in this order"
    assert [unnamed in note for note in prepared.notes] == [True] * (names[0] == "LABEL_0")
    labels = {
        prepared.corpus.train.label_names[label]: text
        for text, label in zip(
            prepared.corpus.train.texts, prepared.corpus.train.labels, strict=True
        )
    }
    expected = (
        names if names[0].casefold() in ("negative", "positive") else ["negative", "positive"]
    )
    assert list(prepared.corpus.train.label_names) == expected
    for name, text in labels.items():  # classes changed their numbers, not their texts
        assert any(word in text for word in ("good", "fine", "great")) is (
            name.casefold() == "positive"
        )


def test_numbers_are_those_of_classes_without_names(tiny_model, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", ["LABEL_0", "LABEL_1"])
    file = tmp_path / "numbers.csv"
    file.write_text("text,label\n" + "the film was good,1\nthe film was bad,0\n" * 20)
    assert not prepare(settings(folder, {"train": file, "eval": file})).notes


def test_a_note_of_the_model_is_printed(tiny_model, data, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", ["LABEL_0", "LABEL_1"])
    options = ["--model", folder, "--train", data["train"], "--eval", data["eval"], *FAST]
    said = sentei("inspect", *options)
    assert said.exit_code == 0, said.output
    assert "does not name its classes" in " ".join(said.output.split())


def test_other_names_of_a_teacher_are_told_from_wrong_rows(tiny_model, data, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", ["NEG", "POS"])
    with pytest.raises(ValueError, match="If they are the same under other names, write the mod"):
        prepare(settings(tiny_model, data, teacher=str(folder)))


@pytest.mark.parametrize("long", ["train", "eval"])
def test_a_tokenizer_that_does_not_know_the_models_positions(long, tiny_model, data, tmp_path):
    folder = classifier(tiny_model, tmp_path / "model", ["negative", "positive"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    file = tmp_path / "long.csv"
    file.write_text(f"text,label\n{'good ' * 90},positive\nthe film was bad,negative\n")
    with pytest.raises(ValueError, match="92 tokens is longer than the model's 64 positions"):
        prepare(settings(folder, data | {long: file}))


def test_a_decoder_without_a_padding_token_learns_classes(data, tmp_path):
    words = ["<end>", "the", "was", "film", "book", "meal"]
    words += ["good", "fine", "great", "bad", "poor", "awful"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<end>", unk_token="<end>", model_max_length=32
    )
    tokenizer.save_pretrained(tmp_path / "gpt")
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    config = GPT2Config(vocab_size=len(words), bos_token_id=0, eos_token_id=0, **size)
    GPT2Model(config).save_pretrained(tmp_path / "gpt")
    options = ["--model", tmp_path / "gpt", "--train", data["train"], "--eval", data["eval"]]
    out = tmp_path / "out"
    done = sentei("prune", *options, *FAST, "--method", "platon", "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["pad_token_id"] == 0
    assert AutoTokenizer.from_pretrained(out / "model").pad_token == "<end>"


class CtrlC(TrainerCallback):
    """Pressed during the last step of training."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps - 1:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_the_last_dense_step_stops_before_pruning(tiny_model, data, tmp_path):
    asked = settings(tiny_model, data, dense_epochs=1, precision="fp32")
    said = r"stopped at step 5 of 5; .*dense/checkpoints/checkpoint-5 is complete"
    with pytest.raises(Interrupted, match=said):
        prune(prepare(asked), tmp_path / "run", watch=[CtrlC()])
    assert not (tmp_path / "run" / "checkpoints").exists()
    done = sentei("prune", "--out", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.output


def test_evaluate_measures_what_a_run_set_aside(tiny_model, data, tmp_path):
    out = tmp_path / "out"
    options = ["--model", tiny_model, "--train", data["train"], "--holdout", 0.25]
    done = sentei("prune", *options, *FAST, "--epochs", 2, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    again = sentei("evaluate", "--model", out / "model", "--json")
    assert again.exit_code == 0, again.output
    reported, measured = json.loads(done.stdout), json.loads(again.stdout)
    # a quarter of what is left without a tenth, and what repeats it
    assert 36 <= reported["eval_examples"] < 72
    assert f"{reported['eval_examples']} rows" in measured["data"]
    assert measured["metrics"] == pytest.approx(reported["sparse"])


def test_a_task_reads_its_own_split_of_a_saved_dataset(tiny_model, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        premise=datasets.Value("string"),
        hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
    )

    def part(word: str):
        rows = {"premise": [word] * 3, "hypothesis": ["good", "fine", "bad"], "label": [0, 1, 2]}
        return datasets.Dataset.from_dict(rows, features=features)

    parts = {"train": "a", "validation_matched": "film", "validation_mismatched": "book"}
    saved = datasets.DatasetDict({name: part(word) for name, word in parts.items()})
    saved.save_to_disk(tmp_path / "saved")
    for task, word in (("mnli", "film"), ("mnli_mismatched", "book")):
        _, evaluation = Classification(dataset=task, train=tmp_path / "saved").load(seed=42)
        assert set(evaluation.texts) == {word}


def test_a_demo_that_goes_on_refuses_other_options(finished_demo):
    done = sentei("demo", "--out", finished_demo, "--resume", "--sparsity", 0.9)
    assert done.exit_code == 2 and "leave out --method, --sparsity" in done.stderr
    done = sentei("demo", "--out", finished_demo, "--resume", "--seed", 7)
    assert done.exit_code == 2 and "--seed 7: the run in" in done.stderr
    before = (finished_demo / "report.json").stat().st_mtime_ns
    shown = sentei("demo", "--out", finished_demo, "--resume")
    assert shown.exit_code == 0 and "The pruned model" in shown.output
    assert (finished_demo / "report.json").stat().st_mtime_ns == before


@pytest.fixture
def finished_demo(tiny_model, data, tmp_path) -> Path:
    out = tmp_path / "demo"
    options = ["--model", tiny_model, "--train", data["train"], "--eval", data["eval"]]
    done = sentei("prune", *options, *FAST, "--epochs", 2, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def claims(units: int, pruned: int, budget: object = "global") -> PruningReport:
    weights = 10
    site = SiteRecord(
        name="w",
        layer=0,
        role="query",
        shape=(units, weights),
        weights=units * weights,
        pruned=pruned * weights,
    )
    return PruningReport(
        method="any",
        recipe={**serialization.to_dict(magnitude(0.8, pattern="row")), "budget": budget},
        step=10,
        total_steps=10,
        target=0.8,
        prunable=units * weights,
        pruned=pruned * weights,
        parameters=units * weights,
        zeros=pruned * weights,
        sites=(site,),
        units=(UnitsRecord(pattern="head", name="all", layer=0, units=units, pruned=pruned),),
        updates=(),
        weight_histogram=None,
        score_histogram=None,
    )


@pytest.mark.parametrize(
    ("pruned", "budget", "holds"),
    [
        (115, "global", True),  # of 144 at 80 %: 115.2
        (114, "global", False),
        (114, {"kind": "global", "compat": True}, True),
        (115, {"kind": "across_sizes"}, False),  # which counts weights
        (112, {"kind": "uniform", "multiple": 4}, True),
    ],
)
def test_the_sparsity_asked_for_is_counted_as_the_recipe_counts(pruned, budget, holds):
    found = claims(144, pruned, budget)
    checks = _claims(found, {"w": found.pruned}, {"w": found.prunable}, found.zeros)
    assert [check.holds for check in checks] == [True, True, True, holds]
