"""The metrics of a model on evaluation data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from sentei.data.features import Features, check_inputs
from sentei.models.loading import load_model, locate_model, saved_labels, share_padding
from sentei.run.reference import measured_features
from sentei.run.settings import Settings
from sentei.tasks.corpus import Corpus, load_evaluation
from sentei.tasks.task import mean_loss
from sentei.tensors import count_zeros


@dataclass(frozen=True)
class Evaluation:
    """What a model gives on evaluation data.

    ``model`` is its name, ``data`` where the examples come from; ``zeros`` of its ``parameters``
    are zero.
    """

    model: str
    data: str
    metrics: dict[str, float]
    parameters: int
    zeros: int


def evaluate_saved(settings: Settings) -> Evaluation:
    """Measure a fine-tuned model on the evaluation data of its task.

    Raises:
        ValueError: The model or the data cannot be used, or it has no head for the task.
    """
    folder, name = locate_model(settings.model)
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    training = settings.training
    corpus = load_evaluation(settings.task, saved_labels(folder, **trust), training.seed)
    model, trained = load_model(folder, corpus.head, **trust)
    if not trained:
        raise ValueError(
            f"--model {settings.model}: it has no trained head for this task, so there is nothing "
            "to measure; give a model fine-tuned on it, such as the model/ folder of a run"
        )
    processor = corpus.load_processor(folder, **trust)
    share_padding(model, processor)
    features = measured_features(settings, corpus, processor)
    return Evaluation(
        model=name,
        data=corpus.evaluation.source,
        metrics=evaluate(model, processor, corpus, features, training.batch_size),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        zeros=sum(count_zeros(parameter) for parameter in model.parameters()),
    )


def evaluate(
    model: PreTrainedModel, processor: Any, corpus: Corpus, features: Features, batch_size: int
) -> dict[str, float]:
    """Metrics and mean loss of a model on the evaluation part of a corpus, in fp32.

    A loop of its own: a Trainer would prepare the model for its precision, and a later one would
    take it for prepared and train in that precision too.

    Args:
        model: The model; it moves to the GPU if there is one.
        processor: What made its input.
        corpus: The evaluation examples, and their task.
        features: The same examples made ready for the model.
        batch_size: Examples in a batch.

    Raises:
        ValueError: The model's output is not finite, or texts are longer than it takes.
    """
    check_inputs(features, model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    return metrics_of(model, processor, corpus, features, batch_size)


@torch.no_grad()
def metrics_of(
    model: PreTrainedModel, processor: Any, corpus: Corpus, features: Features, batch_size: int
) -> dict[str, float]:
    """The same where the model is, in the precision that it computes in."""
    task = corpus.task
    lengths = features.lengths if task.any_order else None
    order = None if lengths is None else np.argsort(-lengths, kind="stable").tolist()
    collator = task.collator(processor)
    batches = DataLoader(features, batch_size=batch_size, sampler=order, collate_fn=collator)
    training = model.training
    model.eval()
    predictions = [
        task.predict(model, {name: v.to(model.device) for name, v in batch.items()}, processor)
        for batch in batches
    ]
    model.train(training)
    metrics = task.metrics(predictions, corpus.evaluation, features)
    counts = any(one.labels for one in predictions)
    return {**({"loss": mean_loss(predictions)} if counts else {}), **metrics}
