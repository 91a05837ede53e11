"""A model's embeddings of many texts, each asked for once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel

from sentei.distill.cache import TeacherCache
from sentei.distill.outputs import Outputs
from sentei.distill.teacher import fingerprint
from sentei.models.beginnings import all_beginnings
from sentei.tasks.embeddings.features import Vectors
from sentei.tasks.embeddings.processor import SentenceProcessor
from sentei.tasks.metrics import check_finite


@torch.no_grad()
def embed(
    parts: Sequence[tuple[str, tuple[str, ...]]],
    model: PreTrainedModel,
    processor: SentenceProcessor,
    length: int,
    batch_size: int,
    cache: TeacherCache | None = None,
) -> Vectors:
    """Vectors of texts, (texts, width), by a model in evaluation, in its own precision.

    Args:
        parts: Texts, and what each is.
        model: The model, which stays where it is.
        processor: Makes its input, and vectors of its output.
        length: Tokens of a text at most.
        batch_size: Texts at a time; those of like length go together.
        cache: Where they are kept.

    Raises:
        ValueError: The model's output is not finite, or the cache is another model's.
    """
    training = model.training
    model.eval()
    if cache is not None:
        cache.bind(_name(model, processor, length), {})
    try:
        vectors = np.zeros((len(parts), processor.width), np.float32)
        for numbers, batch in _batches(parts, processor, length, batch_size):
            inputs = {name: one.to(model.device) for name, one in batch.items()}
            vectors[numbers] = _of_batch(model, inputs, processor, cache).cpu().numpy()
    finally:
        model.train(training)
        if cache is not None:
            cache.close()
    check_finite(vectors)
    return vectors


def _of_batch(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    processor: SentenceProcessor,
    cache: TeacherCache | None,
) -> Tensor:
    inputs = processor.inputs(batch, model)

    def run() -> Outputs:
        return Outputs(processor.vectors(model(**inputs), batch))

    return (run() if cache is None else cache.outputs(inputs, "", model.device, run)).logits


def _batches(
    parts: Sequence[tuple[str, tuple[str, ...]]],
    processor: SentenceProcessor,
    length: int,
    size: int,
) -> Any:
    tokenizer = processor.tokenizer
    texts, _ = all_beginnings(
        [processor.pooling.ready(*part) for part in parts], None, length, tokenizer
    )
    encoded = tokenizer(texts, truncation=True, max_length=length)
    pad = DataCollatorWithPadding(tokenizer)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        some = {name: [values[i] for i in numbers] for name, values in encoded.items()}
        rows = zip(*some.values(), strict=True)
        yield numbers, pad([dict(zip(some, row, strict=True)) for row in rows])


def _name(model: PreTrainedModel, processor: SentenceProcessor, length: int) -> str:
    """What embeddings depend on, beside the tokens of a text."""
    rest = f"{processor.pooling.modes} {processor.pooling.normalize} {length}"
    return hashlib.blake2b(f"{fingerprint(model)} {rest}".encode(), digest_size=16).hexdigest()
