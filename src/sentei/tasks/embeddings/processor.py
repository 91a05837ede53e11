"""What makes an embedding model's input, and what becomes of its output."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sentei.models.pooling import Pooling, SentenceFiles
from sentei.modules import unwrapped


class SentenceProcessor:
    """A tokenizer, and how vectors follow from tokens; written as sentence-transformers reads it.

    Args:
        tokenizer: The model's.
        pooling: How vectors follow.
        files: What stood around the model.
        width: Of the model's hidden state.
    """

    def __init__(self, tokenizer: Any, pooling: Pooling, files: SentenceFiles, width: int) -> None:
        self.tokenizer = tokenizer
        self.pooling = pooling
        self._files = files
        self._width = width

    @property
    def width(self) -> int:
        """Of a vector."""
        return len(self.pooling.modes) * self._width

    @property
    def pad_token_id(self) -> int | None:
        """The tokenizer's."""
        number: int | None = self.tokenizer.pad_token_id
        return number

    @property
    def model_input_names(self) -> list[str]:
        """The tokenizer's."""
        names: list[str] = self.tokenizer.model_input_names
        return names

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer, and the files of sentence-transformers."""
        self.tokenizer.save_pretrained(folder)
        self._files.write(Path(folder), self._width)

    def vectors(self, output: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Tensor:
        """Of a model's output on a batch, (texts, width)."""
        return self.pooling(output["last_hidden_state"], batch["attention_mask"])

    def inputs(self, batch: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
        """What a model reads of a batch."""
        known = inspect.signature(type(unwrapped(model)).forward).parameters
        own = {name: batch[name] for name in self.model_input_names if name in batch}
        # A DistilBERT has no place for the token types that a BERT's tokenizer makes.
        return {name: value for name, value in own.items() if name in known} or own
