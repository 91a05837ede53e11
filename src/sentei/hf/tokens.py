"""Token ids for the Trainer."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from sentei.hf.data import Examples


class Tokens(Dataset[dict[str, list[int] | int | float]]):
    """Tokenised examples without padding, for ``DataCollatorWithPadding``; made by `tokenise`.

    The rows of each column lie end to end in one flat array: a tenth of the memory of lists.
    """

    def __init__(
        self,
        columns: dict[str, NDArray[np.int32]],
        lengths: list[int],
        labels: list[int] | list[float],
    ) -> None:
        self._columns = columns
        self._ends = list(accumulate(lengths, initial=0))
        self._labels = labels

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, special tokens included."""
        return np.diff(np.asarray(self._ends))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, list[int] | int | float]:
        i = range(len(self))[index]
        row: dict[str, list[int] | int | float] = {
            name: values[self._ends[i] : self._ends[i + 1]].tolist()
            for name, values in self._columns.items()
        }
        return row | {"labels": self._labels[i]}


def tokenise(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokens:
    """Token ids of every example, cut to ``max_length`` tokens, with ``labels``.

    Of a pair the longer text is cut first.

    Raises:
        ValueError: If ``max_length`` is more than the model takes or leaves no room for text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=examples.pairs is not None)
    if not special < max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"max_length is {max_length} tokens: with this tokenizer it must be more than the "
            f"{special} special tokens and at most {tokenizer.model_max_length}."
        )
    columns, lengths = defaultdict[str, list[NDArray[np.int32]]](list), list[int]()
    for start in range(0, len(examples), 1024):
        chunk = slice(start, start + 1024)
        pairs = examples.pairs[chunk] if examples.pairs is not None else None
        rows = tokenizer(examples.texts[chunk], pairs, truncation=True, max_length=max_length)
        lengths += map(len, rows["input_ids"])
        for name, values in rows.items():
            columns[name].append(np.fromiter(chain.from_iterable(values), np.int32))
    return Tokens(
        {name: np.concatenate(parts) for name, parts in columns.items()}, lengths, examples.labels
    )
