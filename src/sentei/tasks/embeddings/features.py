"""Texts made ready for a model, each once, and the rows that they stand in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DataCollatorWithPadding

from sentei.data.features import Features, tokenise
from sentei.messages import counted
from sentei.tasks.embeddings.processor import SentenceProcessor
from sentei.tasks.embeddings.rows import TextRows

Vectors = NDArray[np.float32]
"""(texts, width)."""


@dataclass(frozen=True)
class _Texts:
    """Texts whose labels are their numbers, as a tokenizer takes them."""

    texts: Sequence[str]
    labels: Sequence[int]
    pairs: None = None


class Sentences(Features):
    """Every distinct text of some rows, one by one.

    Args:
        examples: The rows.
        processor: Makes the model's input.
        length: Tokens of a text at most.
    """

    def __init__(self, examples: TextRows, processor: SentenceProcessor, length: int) -> None:
        numbers: dict[tuple[str, tuple[str, ...]], int] = {}
        roles = examples.roles
        self.rows = np.array(
            [
                [numbers.setdefault(one, len(numbers)) for one in zip(row, roles, strict=True)]
                for row in examples.rows
            ]
        )
        """(rows, texts of a row): numbers of texts."""
        self.parts = [*numbers]
        """Every text, and what it is."""
        self.targets: Vectors | None = None
        """What another model gives for each text, where that is learnt or compared."""
        ready = [processor.pooling.ready(*part) for part in self.parts]
        texts = _Texts(ready, range(len(ready)))
        self._tokens = tokenise(texts, processor.tokenizer, length)
        if examples.places > 1:
            self.summary = counted(len(ready), "different text")

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return self._tokens.lengths

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest number of a token and of a part of a pair."""
        return self._tokens.largest

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = self._tokens[index]
        return text if self.targets is None else {**text, "target": self.targets[text["labels"]]}


class Rows(Features):
    """Rows of texts, as they are learnt from.

    Args:
        sentences: The texts.
        scores: Of each row, where there are any.
    """

    def __init__(self, sentences: Sentences, scores: Sequence[float] | None) -> None:
        self.sentences = sentences
        self._scores = scores
        self.summary = sentences.summary

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row's longest text."""
        longest: NDArray[np.int64] = self.sentences.lengths[self.sentences.rows].max(1)
        return longest

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest number of a token and of a part of a pair."""
        return self.sentences.largest

    def __len__(self) -> int:
        return len(self.sentences.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, *others = (self.sentences[int(number)] for number in self.sentences.rows[index])
        score = {} if self._scores is None else {"score": self._scores[index]}
        return {**first, "others": others, **score}


def collator(processor: SentenceProcessor) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """What makes a batch of texts or rows: all first texts, then all second ones.

    ``labels`` are the texts' numbers, (texts of a row, rows); ``targets`` what is learnt of them,
    (texts, width); ``scores`` the rows'.
    """
    pad = DataCollatorWithPadding(processor.tokenizer)
    names = processor.model_input_names

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [[one, *one.get("others", ())] for one in features]
        texts = [text for place in zip(*rows, strict=True) for text in place]
        batch = {**pad([{name: one[name] for name in names if name in one} for one in texts])}
        numbers = torch.tensor([one["labels"] for one in texts])
        batch["labels"] = numbers.view(-1, len(rows))
        if "target" in texts[0]:
            batch["targets"] = torch.from_numpy(np.stack([one["target"] for one in texts]))
        if "score" in features[0]:
            batch["scores"] = torch.tensor([one["score"] for one in features])
        return batch

    return collate
