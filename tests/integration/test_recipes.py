"""The files in recipes/: complete, sourced, typed as they say, and they prune."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

import sentei
from sentei import methods
from sentei.cli import app
from sentei.parts.budget import AcrossSizes
from sentei.run.options import places, settings_from
from sentei.run.settings import Training
from sentei.tasks.catalogue import DATASETS
from sentei.testing import make_sparse_

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes").glob("*/*.yaml"))
BY_FILE = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
NAME = re.compile(
    r"(?P<model>bert-base-uncased|deberta-v3-base|gpt2|bart-large|vit-base-patch16-224-in21k)"
    r"-(?P<task>[a-z0-9]+)-kept(?P<kept>\d\d)(-[a-z]+)*"
)
CORPORA = {"fineweb": "language", "mlm": "masked-text"}
"""Kind of what is pruned on a corpus, which no known task has."""

STEPS = 30
"""Enough for a ramp."""

EXAMPLES = 1000


def name_of(file: Path) -> dict[str, str]:
    found = NAME.fullmatch(file.stem)
    assert found, f"{file.name} is not <model>-<task>-kept<percent>[-<what>].yaml"
    return found.groupdict()


def header(file: Path) -> str:
    """The comment before the recipe, without its marks."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def value_at(recipe: sentei.Recipe, path: str) -> Any:
    value: Any = recipe
    for key in path.split("."):
        value = getattr(value, key)
    return value


def command_of(file: Path) -> dict[str, Any]:
    """Arguments of the command in the header."""
    [line] = re.findall(r"^  (sentei .+)$", header(file).replace("\\\n", " "), re.M)
    verb, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    return group.commands[verb].make_context(verb, arguments).params


def training_of(file: Path) -> Training:
    """What the command in the header says of the training."""
    arguments = command_of(file)
    typed = {key: arguments[key] for key in places() if arguments.get(key) is not None}
    return settings_from(typed, sentei.serialization.to_dict(sentei.load(file))).training


def total_steps(file: Path) -> int | None:
    """Optimizer steps that the header states; None where it says that they are unknown."""
    [line] = re.findall(r"^steps: (.+)$", header(file), re.M)
    if line.startswith("unknown"):
        return None
    total = int(line.rpartition("=")[2])
    if found := re.match(r"ceil\((\d+) / (\d+)\) x (\d+) = ", line):
        examples, batch, epochs = map(int, found.groups())
        assert -(-examples // batch) * epochs == total, line
    else:
        an_epoch, epochs = map(int, re.match(r"(\d+) x (\d+) = ", line).groups())
        assert an_epoch * epochs == total, line
    return total


def test_there_are_recipes_for_all_four_papers():
    assert {"platon", "mgpp", "leap", "knowledge_aware"} <= {file.parent.name for file in FILES}
    assert len(FILES) >= 110


# --------------------------------------------------------------------------------- as they are


@BY_FILE
def test_a_file_is_a_whole_recipe(file):
    recipe = sentei.load(file)
    assert sentei.load(sentei.dump(recipe)) == recipe
    # Complete: a default changed later changes no file.
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == yaml.safe_load(sentei.dump(recipe))
    known = {method.name for method in methods.known()}
    assert file.parent.name in known
    transfers = file.stem.endswith("-transfer")
    assert recipe.method == ("frozen_mask" if transfers else file.parent.name)
    assert int(name_of(file)["kept"]) == round(100 * (1 - recipe.schedule.sparsity))


@BY_FILE
def test_every_number_has_its_source_beside_it(file):
    numbered = re.compile(r"^[ -]*\w+: -?[\d.]+(e[+-]?\d+)?\s*(?P<comment>#.*)?$")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    found = [(line, numbered.match(line)) for line in lines]
    bare = [line for line, number in found if number and len(number["comment"] or "") < 6]
    assert bare == []
    # The pattern has seen every number there is.
    plain = yaml.safe_load("\n".join(lines))
    assert sum(number is not None for _, number in found) == count_numbers(plain)
    assert re.search(r"^Source: .{20}", header(file), re.M)


def count_numbers(data: Any) -> int:
    if isinstance(data, dict):
        return sum(map(count_numbers, data.values()))
    if isinstance(data, list):
        return sum(map(count_numbers, data))
    return isinstance(data, int | float) and not isinstance(data, bool)


@BY_FILE
def test_the_command_in_the_header_can_be_typed(file):
    text = header(file)
    found = command_of(file)
    assert ROOT / found["recipe"] == file
    name = name_of(file)
    if name["task"] in CORPORA:
        assert found["kind"] == CORPORA[name["task"]] and found["train"]
    else:
        assert found["task"].replace("_", "") == name["task"]
        assert name["task"] in DATASETS
    assert found["model"].endswith(name["model"]) or found["model"].startswith("runs/")
    assert bool(found["teacher"]) == (sentei.load(file).distill is not None)
    training = training_of(file)
    steps = re.search(r"^steps: .*?(\d+)\)? x (\d+) = ", text, re.M)
    if steps and total_steps(file):
        assert training.epochs == int(steps[2])
    if batches := re.search(r"^steps: ceil\(\d+ / (\d+)\)", text, re.M):
        assert training.batch_size == int(batches[1])


@BY_FILE
def test_a_method_trains_as_its_authors_do(file):
    """The table of docs/papers.md: a new row forgets none of it."""
    training, task = training_of(file), name_of(file)["task"]
    if file.parent.name == "platon":
        glue = DATASETS[task].kind == "classification" and not file.stem.endswith("-rows")
        assert training.optimizer == ("bert_adamax" if glue else "adamw")
    elif file.parent.name == "mgpp":
        if task in ("xsum", "cnndailymail"):
            return  # ours
        transfers, codes = file.stem.endswith("-transfer"), "-bayesian" in file.stem
        adam = {"squad": 0.999, "mlm": 0.999}.get(task, 0.95 if codes else 0.98)
        assert training.adam_beta2 == adam
        assert (training.lr_floor == 0) == transfers and training.optimizer == "adamw"
    elif file.parent.name == "knowledge_aware":
        assert training.optimizer == "bert_adam" and training.lr_schedule == "constant"
        assert training.clip == 1 and training.clip_each
    elif not file.stem.endswith("-hybrid") or file.parent.name == "leap":
        assert training.freeze_embeddings


@BY_FILE
def test_fractions_are_the_steps_of_the_header(file):
    recipe, total = sentei.load(file), total_steps(file)
    stated = re.findall(r"^([a-z_]+(?:\.[a-z_]+)+): (\d+) / (\d+)", header(file), re.M)
    for path, steps, of in stated:
        value = value_at(recipe, path)
        assert value == pytest.approx(int(steps) / int(of), abs=6e-7)
        if total is not None:
            assert int(of) == total
            assert round(value * total) == int(steps)
    # What is a fraction of training, and not 0, is stated.
    paths = {path for path, _, _ in stated}
    schedule = recipe.schedule.model_dump()
    for key in ("warmup", "cooldown"):
        assert not schedule.get(key) or f"schedule.{key}" in paths
    for part in ("score", "budget"):
        if hasattr(getattr(recipe, part), "optimizer"):
            assert f"{part}.optimizer.warmup" in paths
    if total is not None:
        recipe.with_examples(EXAMPLES).check(total)


BASELINES = [
    ("platon/bert-base-uncased-mrpc-kept10", ["score=magnitude"]),
    ("platon/bert-base-uncased-mrpc-kept10", ["score=smoothed"]),
    ("mgpp/bert-base-uncased-qnli-kept10", ["penalties=[]"]),
    (
        "mgpp/bert-base-uncased-qnli-kept10",
        ["score=uncertainty", "score.beta2=0.85", "penalties=[]"],
    ),
    ("movement/bert-base-uncased-mnli-kept10", ["distill=null"]),
    ("soft_movement/bert-base-uncased-mnli-kept10", ["distill=null"]),
    ("l0/bert-base-uncased-mnli-kept10", ["distill=null"]),
    ("soft_movement/bert-base-uncased-mnli-kept10", ["pattern=32x32"]),
]
"""What docs/papers.md changes in a file to make it a baseline of a table."""


@pytest.mark.parametrize(("file", "settings"), BASELINES, ids=str)
def test_a_file_makes_the_baselines_of_its_table(file, settings):
    shown = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert all(f"--set {setting}" in shown for setting in settings)
    path = ROOT / "recipes" / f"{file}.yaml"
    recipe = fitted(sentei.override(sentei.load(path), settings))
    with warnings.catch_warnings():
        if hasattr(recipe.budget, "settle"):  # a coefficient for far longer training, as it says
            warnings.simplefilter("ignore", sentei.SenteiWarning)
        _, pruner = train(path, recipe, STEPS, STEPS)
        assert pruner.finish().pruned > 0


# ------------------------------------------------------------------------------- as they prune


def make_model(file: Path) -> torch.nn.Module:
    """A tiny untrained model of the family and head that the file's name says."""
    name = name_of(file)
    if name["model"] == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)
        )
    if name["model"] == "vit-base-patch16-224-in21k":
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                image_size=8,
                patch_size=4,
            )
        )
    if name["model"] == "bart-large":
        sizes = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
        stacks = ("encoder", "decoder")
        sizes = {f"{stack}_{key}": size for stack in stacks for key, size in sizes.items()}
        return BartForConditionalGeneration(
            BartConfig(vocab_size=50, d_model=32, max_position_embeddings=16, **sizes)
        )
    small = dict(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels={"mnli": 3, "stsb": 1}.get(name["task"], 2),
    )
    if name["model"] == "deberta-v3-base":  # as the published model's relative positions
        config = DebertaV2Config(
            **small,
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            position_biased_input=False,
        )
        heads = {"squad": DebertaV2ForQuestionAnswering}
        return heads.get(name["task"], DebertaV2ForSequenceClassification)(config)
    heads = {"squad": BertForQuestionAnswering, "mlm": BertForMaskedLM}
    return heads.get(name["task"], BertForSequenceClassification)(BertConfig(**small))


def train(
    file: Path, recipe: sentei.Recipe, total: int, steps: int
) -> tuple[torch.nn.Module, sentei.Pruner]:
    """``steps`` steps of a plain loop on noise, of a training of ``total``."""
    torch.manual_seed(0)
    model = make_model(file).train()
    make_sparse_(model, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    recipe = recipe.model_copy(update={"distill": None})  # what the pruner does is looked at
    pruner = sentei.Pruner(model, recipe, total_steps=total, examples=EXAMPLES)
    pruner.attach(optimizer)
    task = name_of(file)["task"]
    for _ in range(steps):
        tokens = torch.randint(0, 50, (8, 8))
        inputs, labels = {"input_ids": tokens}, {"labels": torch.randint(0, 2, (8,))}
        if task in ("cifar100", "imagenet"):
            inputs = {"pixel_values": torch.randn(8, 3, 8, 8)}
        elif task in ("mlm", "fineweb", "xsum", "cnndailymail"):
            labels = {"labels": tokens}
        elif task == "squad":
            labels = {
                key: torch.randint(0, 8, (8,)) for key in ("start_positions", "end_positions")
            }
        elif task == "stsb":
            labels = {"labels": torch.rand(8) * 5}
        model(**inputs, **labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, pruner


def fitted(recipe: sentei.Recipe) -> sentei.Recipe:
    """The recipe with what counts in steps, or learns too slowly for a few, made to fit them."""
    settings = {
        "schedule.every": 2,
        "schedule.stages": 10,
        "schedule.rises": 5,
        "score.window": 2,
        "score.optimizer.lr": 0.5,
        "budget.optimizer.lr": 1.0,
        "budget.temperature": 1.0,
    }
    there = []
    for path, value in settings.items():
        try:
            old = value_at(recipe, path)
        except AttributeError:
            continue
        if old is not None:
            there.append(f"{path}={value}")
    return sentei.override(recipe, there)


@BY_FILE
def test_the_first_steps_of_the_real_length(file):
    recipe, total = sentei.load(file), total_steps(file) or 10_000
    _, pruner = train(file, recipe, total, steps=3)
    assert pruner.step == 3
    if pruner.target == 0:  # in the warm-up nothing is pruned
        assert pruner.updates == []
        assert not any((~mask).any() for mask in pruner.masks.values())
    pruner.detach()


@BY_FILE
def test_it_prunes_to_the_end(file):
    recipe = fitted(sentei.load(file))
    emergent = getattr(recipe.budget, "settle", 0) is None
    with warnings.catch_warnings():
        # What comes of a coefficient in 30 steps is not what the paper trained for, and says so.
        if hasattr(recipe.budget, "settle"):
            warnings.simplefilter("ignore", sentei.SenteiWarning)
        model, pruner = train(file, recipe, STEPS, STEPS)
        weights = [model.get_parameter(name) for name in pruner.masks]
        report = pruner.finish()
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    wanted = pruner.prunable * recipe.schedule.sparsity
    assert report.updates[-1].step == STEPS
    assert report.pruned == zeros
    assert zeros > 0
    if emergent:
        assert report.updates[-1].pruned == zeros
    elif isinstance(recipe.budget, AcrossSizes):
        # Whole rows, the largest of as many weights as the widest matrix.
        assert wanted <= report.updates[-1].pruned == zeros < wanted + 64
    elif getattr(recipe.budget, "compat", False):
        # As the authors count: below the k-th score, and ties with it stay.
        assert report.updates[-1].pruned == int(wanted) - 1
        assert zeros - report.updates[-1].pruned <= 2 * 32  # key biases, which get no gradient
    else:
        assert report.updates[-1].pruned == zeros == round(wanted)
