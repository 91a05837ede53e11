"""Features: what a model takes, one by one, and the order in which training shows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sentei.models.beginnings import all_beginnings
from sentei.models.inputs import positions, tables

CHUNK = 1024
"""Examples that a tokenizer takes at once."""


class Features(Dataset[dict[str, Any]], ABC):
    """Examples made ready for a model: what the Trainer asks for, one by one.

    ``summary`` says in words what became of the examples, where that is not one each.
    """

    summary: str = ""

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Tokens of each, special tokens included; None for what has none."""
        return None

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest of the numbers that a model looks up, by the name of its input."""
        return {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, for what is drawn anew in each."""


POOL = 50
"""Batches' worth of examples that are drawn together and then sorted."""


class ByLength(Sampler[int]):
    """The order of an epoch in which batches hold examples of like length.

    Examples are drawn in pools of 50 batches, each pool is sorted and cut, and all batches are
    shuffled, so that lengths do not drift as training goes. A short batch comes last.

    Args:
        lengths: Of every example.
        batch_size: Examples in a batch.
        seed: With the epoch, what the order depends on.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        indices, size = random.permutation(len(self)), self.batch_size
        batches = []
        for start in range(0, len(indices), POOL * size):
            pool = indices[start : start + POOL * size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        whole = len(self) // size
        order = [*random.permutation(whole), *range(whole, len(batches))]
        return chain.from_iterable(batches[at].tolist() for at in order)


class Ragged:
    """Rows of whole numbers, end to end in one flat array: a tenth of the memory of lists."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.int32]] = []
        self._ends: list[int] = [0]

    def extend(self, rows: Sequence[Sequence[int]]) -> None:
        """Put more rows behind those that are there."""
        self._chunks.append(np.fromiter(chain.from_iterable(rows), np.int32))
        self._ends += [*accumulate(map(len, rows), initial=self._ends[-1])][1:]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Numbers in each row."""
        return np.diff(np.asarray(self._ends))

    @property
    def largest(self) -> int:
        """The largest number of all rows; -1 where there is none."""
        return max((int(chunk.max(initial=-1)) for chunk in self._chunks), default=-1)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> list[int]:
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        row: list[int] = self._chunks[0][self._ends[index] : self._ends[index + 1]].tolist()
        return row


class Tokens(Features):
    """Tokenised examples without padding, for a collator that pads.

    Args:
        columns: By name.
        others: Numbers of the tokens that a model gets besides, such as padding.
    """

    def __init__(
        self,
        columns: Mapping[str, Ragged | Sequence[int] | Sequence[float]],
        others: Iterable[int | None] = (),
    ) -> None:
        self.columns = columns
        self._others = [number for number in others if number is not None]
        ids = columns["input_ids"]
        assert isinstance(ids, Ragged)
        self._ids = ids

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, special tokens included."""
        return self._ids.lengths

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest number of a token and of a part of a pair."""
        parts = self.columns.get("token_type_ids")
        largest = {"input_ids": max([self._ids.largest, *self._others])}
        return largest | ({"token_type_ids": parts.largest} if isinstance(parts, Ragged) else {})

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = range(len(self))[index]
        return {name: values[i] for name, values in self.columns.items()}


class TextExamples(Protocol):
    """Texts or pairs of them, each with a class's number or a value."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts."""

    @property
    def pairs(self) -> Sequence[str] | None:
        """The second texts; None where there are no pairs."""

    @property
    def labels(self) -> Sequence[int] | Sequence[float]:
        """What is learnt of each."""


def tokenise(examples: TextExamples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokens:
    """Token ids of every example, cut to ``max_length`` tokens, with ``labels``.

    Of a pair the longer text is cut first.

    Raises:
        ValueError: If ``max_length`` is more than the model takes or leaves no room for text.
    """
    check_length(max_length, tokenizer, pair=examples.pairs is not None)
    columns: dict[str, Ragged] = {}
    for chunk in chunks(len(examples.texts)):
        pairs = examples.pairs[chunk] if examples.pairs is not None else None
        texts, pairs = all_beginnings(examples.texts[chunk], pairs, max_length, tokenizer)
        rows = tokenizer(texts, pairs, truncation=True, max_length=max_length)
        for name, values in rows.items():
            columns.setdefault(name, Ragged()).extend(values)
    return Tokens({**columns, "labels": examples.labels}, [tokenizer.pad_token_id])


def chunks(count: int) -> Iterator[slice]:
    """Slices that cover ``count`` examples."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def check_length(
    max_length: int, tokenizer: PreTrainedTokenizerBase, *, pair: bool = False
) -> None:
    """Refuse a length that is more than the tokenizer's model takes or leaves no room for text.

    Raises:
        ValueError: It does.
    """
    special = tokenizer.num_special_tokens_to_add(pair=pair)
    if not special < max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"max_length is {max_length} tokens: with this tokenizer it must be more than the "
            f"{special} special tokens and at most {tokenizer.model_max_length}."
        )


def check_inputs(features: Features, model: PreTrainedModel) -> None:
    """Refuse what a model has no place for: positions of a text, tokens, parts of a pair.

    Not every tokenizer knows its model's limits.

    Raises:
        ValueError: There is such an example.
    """
    for name, places in tables(model).items():
        if (largest := features.largest.get(name, -1)) >= places:
            raise ValueError(f"{_NO_PLACE[name].format(number=largest, places=places)}")
    limit = positions(model)
    if limit is None or features.lengths is None:
        return
    if (longest := int(features.lengths.max())) > limit:
        raise ValueError(
            f"a text of {longest} tokens is longer than the model's {limit} positions: use "
            f"--max-length {limit}"
        )


_NO_PLACE: Final = {
    "input_ids": (
        "the tokenizer makes the token number {number}, and the model has embeddings for {places}: "
        "tokens were added to the tokenizer alone. Call "
        "model.resize_token_embeddings(len(tokenizer)) and save both, or use the tokenizer that "
        "the model came with"
    ),
    "token_type_ids": (
        "the tokenizer gives parts of a pair numbers up to {number}, and the model knows {places}: "
        "use the tokenizer that the model came with"
    ),
}
