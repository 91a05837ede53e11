"""Texts in; labels or vectors out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from sentei.models.beginnings import all_beginnings
from sentei.models.loading import is_a
from sentei.models.pooling import Pooling
from sentei.runtime.encoder import Array

Text = str | tuple[str, str]
"""A text, or a pair of texts that the model reads together."""

Prediction = dict[str, Any] | list[dict[str, Any]] | float | list[float]


def batches(
    texts: Sequence[Text], tokenizer: Any, longest: int, size: int
) -> Iterator[tuple[list[int], Any]]:
    """Texts of like length together: their numbers, and what the tokenizer makes of them."""
    encoded = _encode(texts, tokenizer, longest)
    for numbers in _alike(encoded, size):
        yield numbers, _padded(encoded, numbers, tokenizer)


def _encode(texts: Sequence[Text], tokenizer: Any, longest: int, **options: Any) -> Any:
    if isinstance(texts, str):
        raise ValueError("give a list of texts; one text is a list of one")
    if tokenizer is None:
        raise ValueError("the engine has no tokenizer: give it one, as compile(..., tokenizer=...)")
    if not texts:
        return {"input_ids": []}
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = None if isinstance(texts[0], str) else [text[1] for text in texts]
    limit = min(longest, tokenizer.model_max_length)
    first, second = all_beginnings(first, second, limit, tokenizer)
    return tokenizer(first, second, truncation=True, max_length=limit, **options)


def _alike(encoded: Any, size: int) -> Iterator[list[int]]:
    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(encoded: Any, numbers: Sequence[int], tokenizer: Any) -> Any:
    some = {name: [values[number] for number in numbers] for name, values in encoded.items()}
    return tokenizer.pad(some, return_tensors="pt")


# ------------------------------------------------------------------------------------------ labels


def predict(
    model: PreTrainedModel, texts: Sequence[Text], tokenizer: Any, longest: int, size: int
) -> list[Prediction]:
    """What a model with a head says of each text."""
    if is_a(model, AutoModelForSequenceClassification):
        return _classify(model, texts, tokenizer, longest, size)
    if is_a(model, AutoModelForTokenClassification):
        return _classify_tokens(model, texts, tokenizer, longest, size)
    raise ValueError(
        f"predict: a {type(model).__name__} labels neither texts nor tokens; call the engine with "
        "the model's inputs, or install it under the model and use transformers' pipeline"
    )


def _classify(
    model: PreTrainedModel, texts: Sequence[Text], tokenizer: Any, longest: int, size: int
) -> list[Prediction]:
    found: list[Prediction] = [0.0] * len(texts)
    for numbers, batch in batches(texts, tokenizer, longest, size):
        for number, logits in zip(numbers, model(**batch).logits.float(), strict=True):
            found[number] = _label(model.config, logits)
    return found


def _label(config: Any, logits: Tensor) -> Prediction:
    names = config.id2label
    if config.problem_type == "regression" or (config.problem_type is None and len(logits) == 1):
        values: list[float] = logits.tolist()
        return values[0] if len(values) == 1 else values
    if config.problem_type == "multi_label_classification":
        scores = logits.sigmoid().tolist()
        return [{"label": names[i], "score": s} for i, s in enumerate(scores) if s >= 0.5]
    score, best = logits.softmax(-1).max(-1)
    return {"label": names[int(best)], "score": float(score)}


def _classify_tokens(
    model: PreTrainedModel, texts: Sequence[Text], tokenizer: Any, longest: int, size: int
) -> list[Prediction]:
    """Of each text the tokens that are not outside (``O``), with their places in it."""
    found: list[Prediction] = [[] for _ in texts]
    names: Any = model.config.id2label
    encoded = _encode(
        *(texts, tokenizer, longest), return_offsets_mapping=True, return_special_tokens_mask=True
    )
    places = encoded.pop("offset_mapping", [])
    special = encoded.pop("special_tokens_mask", [])
    for numbers in _alike(encoded, size):
        batch = _padded(encoded, numbers, tokenizer)
        scores, best = model(**batch).logits.float().softmax(-1).max(-1)
        for number, score, label, mask in zip(
            numbers, scores, best, batch["attention_mask"].bool(), strict=True
        ):
            tokens = zip(label[mask].tolist(), score[mask].tolist(), strict=True)
            found[number] = [
                {"label": names[label], "score": score, "start": start, "end": end}
                for (label, score), (start, end), skip in zip(
                    tokens, places[number], special[number], strict=True
                )
                if not skip and names[label] != "O"
            ]
    return found


# ----------------------------------------------------------------------------------------- vectors


def embed(
    base: PreTrainedModel,
    texts: Sequence[Text],
    tokenizer: Any,
    pooling: Pooling,
    longest: int,
    size: int,
) -> Array:
    """A vector of each text, (texts, width) float32."""
    if pooling.lower or pooling.prompt:
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("embed: this model takes single texts, not pairs")
        texts = [pooling.ready(str(text)) for text in texts]
    limit = longest if pooling.longest is None else min(longest, pooling.longest)
    width = len(pooling.modes) * base.config.hidden_size
    vectors = np.zeros((len(texts), width), np.float32)
    for numbers, batch in batches(texts, tokenizer, limit, size):
        hidden = base(**batch).last_hidden_state
        vectors[numbers] = pooling(hidden, batch["attention_mask"]).numpy()
    return vectors
