"""A short training in the real Trainer, and recipes fitted to it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, Trainer, TrainingArguments

import sentei
from sentei import serialization
from sentei.testing import make_sparse_

STEPS = 24
CONFIG = BertConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=100,
    max_position_embeddings=16,
)
FITTING = {"schedule.every": 2, "score.window": 2, "schedule.stages": 8, "score.optimizer.lr": 0.2}


def trainer(folder: Path, *callbacks, **settings) -> Trainer:
    torch.manual_seed(0)
    tokens = torch.randint(0, 100, (96, 6), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": row, "labels": row[0] % 2} for row in tokens]
    arguments = {
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 5,
    } | settings
    model = AutoModelForSequenceClassification.from_config(CONFIG)
    for callback in callbacks:
        if isinstance(callback, sentei.PruningCallback):
            make_sparse_(model, callback.recipe)
    return Trainer(
        model,
        TrainingArguments(
            str(folder),
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=rows,
        eval_dataset=rows[:8],
        callbacks=list(callbacks),
    )


def zeros(model, names) -> int:
    return sum(int((model.get_parameter(name) == 0).sum()) for name in names)


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in run.model.named_parameters()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fitted(method, sparsity=0.8) -> sentei.Recipe:
    """The method's recipe, fitted to a run of a few steps, without its teacher."""
    recipe = method.build(sparsity).model_copy(update={"distill": None})
    for path, value in FITTING.items():
        try:
            recipe = serialization.override(recipe, [f"{path}={value}"])
        except ValueError:
            continue
    return recipe
