"""The next token of running text, measured by perplexity.

Texts are put end to end, the tokenizer's end-of-text token behind each, and cut into blocks of one
length without padding; what does not fill a block is left out. Perplexity is exp of the mean loss
of a token. It depends on tokenizer and block length: compare only what agrees in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, DefaultDataCollator, PreTrainedModel

from sentei.data.features import Features, check_length
from sentei.data.formats import KNOWN, read_text
from sentei.data.holdout import set_aside
from sentei.data.table import Table
from sentei.messages import counted
from sentei.tasks.task import OF_TABLES, Batch, Collator, Kind, Said, Unlabelled
from sentei.tasks.texts import text_cells

_PLAIN = (".txt", ".md")
_PIECE = 1 << 16
"""Characters that the tokenizer takes at once."""


@dataclass(frozen=True)
class Texts(Unlabelled):
    """Texts to continue."""

    rows: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.rows)


class Blocks(Features):
    """Blocks of tokens, each its own labels: a causal model shifts them itself."""

    def __init__(self, ids: NDArray[np.int32], length: int) -> None:
        count = len(ids) // length
        self._ids = ids[: count * length].reshape(count, length)
        self.summary = f"{len(ids):,} tokens in {counted(count, 'block')} of {length:,}"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The same for all."""
        return np.full(len(self._ids), self._ids.shape[1])

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self._ids[range(len(self))[index]].astype(np.int64)
        return {"input_ids": ids, "labels": ids}


class Language(Kind[Texts]):
    """Causal language modelling."""

    name = "language"
    problem = "language modelling"
    one_each = False
    model_class = AutoModelForCausalLM
    columns = ("text_column",)
    options = ("max_length", *OF_TABLES)
    metric_names = ("perplexity",)
    default_metrics = metric_names
    default_length = 512

    def read(self, path: Path, splits: Sequence[str]) -> Texts:
        """One plain text, or the texts of a table.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.is_dir() or path.suffix.lower() in set(KNOWN) - set(_PLAIN):
            return super().read(path, splits)
        text = read_text(path, self.settings.encoding)
        return Texts([text], f"{path}, {counted(len(text), 'character')}")

    def from_table(self, table: Table) -> Texts:
        """The texts of a column."""
        column = self.column("text_column") or "text"
        rows = text_cells(table, column, "--text-column")
        return Texts(rows, f"{table.name} ({column}), {counted(len(rows), 'text')}")

    def split(self, examples: Texts, fraction: float, seed: int) -> tuple[Texts, Texts]:
        """Some texts set aside, or the end of the only one."""
        if len(examples) == 1:
            return _end_aside(examples, fraction)
        rows = examples.rows
        return set_aside(examples, ("rows",), rows, None, "text", fraction=fraction, seed=seed)

    def features(self, examples: Texts, processor: Any, *, training: bool) -> Blocks:
        """Blocks of all texts end to end.

        Raises:
            ValueError: They do not fill one.
        """
        length = self.length(processor)
        check_length(length, processor)
        ids = np.fromiter(chain.from_iterable(_ids(examples.rows, processor)), np.int32)
        if len(ids) < length:
            raise ValueError(
                f"{examples.source}: {counted(len(ids), 'token')} do not fill one block of "
                f"{length}; give more text, or a lower --max-length."
            )
        return Blocks(ids, length)

    def truncated(self, features: Features, processor: Any) -> None:
        """Nothing is cut."""

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that is too short for the blocks or sees what comes after a token.

        Raises:
            ValueError: It is or does.
        """
        ids = torch.from_numpy(features[0]["input_ids"])
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) > limit:
            raise ValueError(
                f"blocks of {len(ids)} tokens are more than the model's {limit} positions: "
                f"--max-length {limit}"
            )
        if _looks_ahead(model, ids[:8]):
            raise ValueError(
                f"--model: a {model.config.model_type} model sees the tokens after the one it "
                f"should guess, so that its perplexity means nothing; name a causal language model"
            )

    def collator(self, processor: Any) -> Collator:
        """Blocks of one length, stacked."""
        return DefaultDataCollator()

    def said(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Said:
        """The loss; of a block, all tokens but the first are guessed."""
        rows, length = batch["labels"].shape
        return Said(float(model(**batch).loss), rows * (length - 1), None)

    def measure(
        self, said: Sequence[Said], examples: Texts, features: Features
    ) -> dict[str, float]:
        """Perplexity of a token."""
        mean = sum(one.loss * one.labels for one in said) / sum(one.labels for one in said)
        if not math.isfinite(mean):
            raise ValueError(
                f"the model's loss is {mean}: training has diverged; try a lower learning rate."
            )
        return {"perplexity": math.exp(min(mean, 700.0))}


@torch.no_grad()
def _looks_ahead(model: PreTrainedModel, ids: torch.Tensor) -> bool:
    """Whether another last token changes what the model says at those before it."""
    other = ids.clone()
    other[-1] = (other[-1] + 1) % model.config.vocab_size
    training = model.training
    model.eval()
    ours, theirs = (model(input_ids=row[None].to(model.device)).logits for row in (ids, other))
    model.train(training)
    return not torch.allclose(ours[:, :-1], theirs[:, :-1], rtol=1e-3, atol=1e-4)


def _ids(texts: Sequence[str], tokenizer: Any) -> Iterator[list[int]]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for text in filter(str.strip, texts):
        for piece in _pieces(text):
            yield tokenizer(piece, add_special_tokens=False)["input_ids"]
        yield end


def _pieces(text: str) -> Iterator[str]:
    """A text cut at line ends, into pieces that a tokenizer handles well."""
    start = 0
    while start < len(text):
        stop = text.find("\n", start + _PIECE) + 1 or len(text)
        yield text[start:stop]
        start = stop


def _end_aside(examples: Texts, fraction: float) -> tuple[Texts, Texts]:
    text = examples.rows[0]
    cut = text.rfind("\n", 0, round(len(text) * (1 - fraction))) + 1
    if not text[:cut].strip() or not text[cut:].strip():
        raise ValueError(
            f"{examples.source}: it has no line end to cut it at; give an evaluation file with "
            f"--eval."
        )
    return (
        Texts([text[:cut]], f"{examples.source}: its first {1 - fraction:.0%}"),
        Texts([text[cut:]], f"{examples.source}: its last {fraction:.0%}"),
    )
