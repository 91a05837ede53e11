"""Files of recipes/ as the command takes them: a tiny model and data in the place of the real."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2LMHeadModel,
)
from typer.testing import CliRunner

import sentei
from helpers import kinds
from integration.test_recipes import FILES, command_of, name_of
from sentei import cli
from sentei.run.settings import Training
from sentei.tasks.catalogue import DATASETS

FEW = {
    "schedule.every": 1,
    "schedule.offset": 0,
    "schedule.stages": 4,
    "schedule.rises": 3,
    "score.window": 2,
}
"""What counts in steps, for a few of them."""

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)


def kind_of(file: Path) -> str:
    task = name_of(file)["task"]
    if task in DATASETS:
        regression = DATASETS[task].options.get("regression")
        return "numbers" if regression else DATASETS[task].kind
    return command_of(file)["kind"]


def shape_of(file: Path) -> tuple[str, ...]:
    """What the command tells files apart by: method, model, kind of task, what is pruned."""
    *_, suffix = f"{file.stem}-".partition("-kept")
    return (file.parent.name, name_of(file)["model"], kind_of(file), suffix[2:])


ONE_OF_EACH = {shape_of(file): file for file in FILES}


def write_model(folder: Path, tiny: Path, model: torch.nn.Module) -> Path:
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def write_encoder(folder: Path, tiny: Path, name: str) -> Path:
    torch.manual_seed(0)
    small = dict(vocab_size=32, max_position_embeddings=64, **SMALL)
    if name == "deberta-v3-base":
        return write_model(folder, tiny, DebertaV2Model(DebertaV2Config(**small)))
    return write_model(folder, tiny, BertModel(BertConfig(**small)))


def write_teacher(folder: Path, tiny: Path, kind: str) -> Path:
    torch.manual_seed(0)
    names = {"classification": ["no", "yes"], "numbers": ["LABEL_0"]}.get(kind, ["a", "b"])
    config = BertConfig(
        vocab_size=32, max_position_embeddings=64, id2label=dict(enumerate(names)), **SMALL
    )
    head = BertForQuestionAnswering if kind == "answers" else BertForSequenceClassification
    return write_model(folder, tiny, head(config))


def texts(folder: Path, label: Callable[[random.Random], Any]) -> list[object]:
    rng = random.Random(0)
    for part, count in (("train", 96), ("eval", 16)):
        rows = [{"text": "the film was good", "label": label(rng)} for _ in range(count)]
        kinds.lines(folder / f"{part}.jsonl", rows)
    data = ["--train", folder / "train.jsonl", "--eval", folder / "eval.jsonl"]
    return ["--kind", "classification", *data]


def with_model(options: list[object], model: Path) -> list[object]:
    place = options.index("--model") + 1
    return [*options[:place], model, *options[place + 1 :]]


def task_options(kind: str, folder: Path, tiny: Path, model: Path) -> list[object]:
    """Data of that kind, and the model, which images and summaries bring."""
    if kind == "classification":
        return [*texts(folder, lambda rng: rng.choice(["yes", "no"])), "--model", model]
    if kind == "numbers":
        return [*texts(folder, lambda rng: rng.random()), "--regression", "--model", model]
    options = kinds.TASKS[kind](folder, tiny)
    if kind == "language":
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=32, n_positions=64, n_embd=32, n_layer=2, n_head=2)
        return with_model(options, write_model(folder / "gpt2", tiny, GPT2LMHeadModel(config)))
    return options if kind in ("images", "summaries") else with_model(options, model)


def training_options(file: Path) -> list[str]:
    """Those of the file's command, for as many steps as its epochs give here."""
    typed = {key: value for key, value in command_of(file).items() if value is not None}
    # Precision is the machine's, and the batch is that of the tiny data.
    names = Training.model_fields.keys() & typed.keys() - {"precision", "batch_size", "epochs"}
    flags = {name: f"--{name.replace('_', '-')}" for name in sorted(names)}
    return [
        part
        for name, flag in flags.items()
        for part in ([flag] if typed[name] is True else [flag, str(typed[name])])
    ]


def settings(file: Path) -> list[str]:
    recipe = sentei.serialization.to_dict(sentei.load(file))
    there = [path for path in FEW if path.split(".")[1] in recipe[path.split(".")[0]]]
    return [part for path in there for part in ("--set", f"{path}={FEW[path]}")]


@pytest.mark.parametrize("file", ONE_OF_EACH.values(), ids=[" ".join(key) for key in ONE_OF_EACH])
def test_inspect_accepts_one_of_each_shape(file, tiny_model, tmp_path):
    recipe = sentei.load(file)
    model = write_encoder(tmp_path / "model", tiny_model, name_of(file)["model"])
    options = task_options(kind_of(file), tmp_path, tiny_model, model)
    options += ["--batch-size", 8, "--epochs", 4, *training_options(file), *settings(file)]
    if recipe.distill:
        options += ["--teacher", write_teacher(tmp_path / "teacher", tiny_model, kind_of(file))]
    if recipe.schedule.from_model:
        sparse = BertModel.from_pretrained(model)
        sentei.testing.make_sparse_(sparse, recipe)
        write_model(model, tiny_model, sparse)
    found = CliRunner().invoke(
        cli.app, [str(part) for part in ("inspect", "--recipe", file, *options, "--json")]
    )
    assert found.exit_code == 0, found.output
    facts = json.loads(found.stdout)
    assert facts["method"] == recipe.method and facts["prunable"] > 0
    if not recipe.schedule.from_model:
        assert facts["target"] == pytest.approx(recipe.schedule.sparsity, abs=0.02)
