"""Pruning in the trainers of sentence-transformers, and what comes out of it in the library."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.sentence_transformer import (
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModel, AutoModelForSequenceClassification

import sentei
from helpers.tiny import sentences
from helpers.training import zeros

STEPS = 12
TEXTS = ["the film was good", "a meal was awful", "the book"]


def rows() -> Dataset:
    texts = [row["text"] for row in sentences(96, seed=0)]
    scores = [float(i % 2) for i in range(96)]
    return Dataset.from_dict({"sentence1": texts, "sentence2": texts[::-1], "label": scores})


def encoder(tiny: Path) -> SentenceTransformer:
    torch.manual_seed(0)
    modules = [Transformer(str(tiny)), Pooling(16, "mean"), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu")


def cross_encoder(tiny: Path) -> CrossEncoder:
    torch.manual_seed(0)
    return CrossEncoder(str(tiny), num_labels=1, device="cpu")


CASES = {
    "embeddings": (
        *(encoder, SentenceTransformerTrainer, SentenceTransformerTrainingArguments),
        *(CosineSimilarityLoss, AutoModel, SentenceTransformer),
    ),
    "pairs": (
        *(cross_encoder, CrossEncoderTrainer, CrossEncoderTrainingArguments),
        *(BinaryCrossEntropyLoss, AutoModelForSequenceClassification, CrossEncoder),
    ),
}


def train(case, tiny: Path, folder: Path, recipe, resume: bool = False):
    make, trainer_class, arguments_class, loss, *_ = CASES[case]
    model = make(tiny)
    callback = sentei.PruningCallback(recipe)
    trainer = trainer_class(
        model=model,
        args=arguments_class(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            save_steps=6,
            logging_steps=1,
            seed=3,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows(),
        loss=loss(model),
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer, callback


def recipe(name: str) -> sentei.Recipe:
    made = getattr(sentei, name)(0.5, every=2, **({"window": 2} if name == "platon" else {}))
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_callback_prunes_in_their_trainers(case, tiny_model, tmp_path):
    trainer, callback = train(case, tiny_model, tmp_path / "run", recipe("platon"))
    report = callback.report
    assert report.pruned == round(0.5 * report.prunable) and report.total_steps == STEPS
    names = [site.name for site in report.sites]
    assert zeros(trainer.model, names) == report.pruned
    logged = {
        line["step"]: line["sparsity"] for line in trainer.state.log_history if "loss" in line
    }
    assert logged[1] == 0 and logged[STEPS] == pytest.approx(0.5, abs=1e-3)

    trainer.model.save_pretrained(str(tmp_path / "model"))
    *_, plain, library = CASES[case]
    inside = plain.from_pretrained(tmp_path / "model")
    assert sum(int((weight == 0).sum()) for weight in inside.parameters()) >= report.pruned
    again, texts = library(str(tmp_path / "model"), device="cpu"), TEXTS
    if case == "embeddings":
        np.testing.assert_allclose(again.encode(texts), trainer.model.encode(texts), atol=1e-6)
    else:
        pairs = [(text, texts[0]) for text in texts]
        ours, theirs = again.predict(pairs), trainer.model.predict(pairs)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_their_trainers_resume_bit_for_bit(case, tiny_model, tmp_path):
    whole, done = train(case, tiny_model, tmp_path / "whole", recipe("platon"))
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "again" / "checkpoint-6")
    resumed, callback = train(case, tiny_model, tmp_path / "again", recipe("platon"), resume=True)
    ours, theirs = (dict(one.model.named_parameters()) for one in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert callback.report == done.report


def test_their_checkpoints_are_sparse_and_plain(tiny_model, tmp_path):
    _, callback = train("embeddings", tiny_model, tmp_path, recipe("magnitude"))
    names = [site.name for site in callback.report.sites]
    for step in (6, STEPS):
        folder = tmp_path / f"checkpoint-{step}"
        model = SentenceTransformer(str(folder), device="cpu")
        assert zeros(model, names) > 0
        assert len(load_file(folder / "model.safetensors")) == len(
            AutoModel.from_pretrained(folder).state_dict()
        )
