"""Blocks of tokens: texts end to end, cut to one length without padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedModel

from sentei.data.features import Features, check_inputs, check_length
from sentei.messages import counted

_PIECE: Final = 1 << 16
"""Characters that the tokenizer takes at once, and the rest of the line."""

_LINE: Final = 1 << 20
"""Characters that it takes at most."""


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

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest number of a token."""
        return {"input_ids": int(self._ids.max())}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self._ids[range(len(self))[index]].astype(np.int64)
        return {"input_ids": ids, "labels": ids}


def pack(texts: Sequence[str], source: str, tokenizer: Any, length: int) -> Blocks:
    """Blocks of all texts end to end.

    Args:
        texts: In their order.
        source: Where they come from, for the error.
        tokenizer: Its end-of-text token stands behind each.
        length: Tokens of a block.

    Raises:
        ValueError: They do not fill one.
    """
    check_length(length, tokenizer)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    pieces = (end if one is None else one["input_ids"] for one in encoded(texts, tokenizer))
    ids = np.fromiter(chain.from_iterable(pieces), np.int32)
    if len(ids) < length:
        raise ValueError(
            f"{source}: {counted(len(ids), 'token')} do not fill one block of "
            f"{length}; give more text, or a lower --max-length."
        )
    return Blocks(ids, length)


def check_causal(model: PreTrainedModel, blocks: Features) -> None:
    """Refuse a model that is too short for the blocks or sees what comes after a token.

    Raises:
        ValueError: It is or does.
    """
    check_inputs(blocks, model)
    ids = torch.from_numpy(blocks[0]["input_ids"])
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


def encoded(texts: Sequence[str], tokenizer: Any) -> Iterator[BatchEncoding | None]:
    """The pieces of each text that is not blank without special tokens, and None behind its last.

    Args:
        texts: In their order.
        tokenizer: What makes tokens of them.
    """
    skipped = _adds_blank(tokenizer)
    for text in filter(str.strip, texts):
        for piece in _pieces(text, skipped):
            yield tokenizer(piece, add_special_tokens=False, verbose=False)
        yield None


def _adds_blank(tokenizer: Any) -> bool:
    """Whether a word is the same with a blank before it and at the beginning of a text."""
    whole, one, other = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", "a", "b")
    )
    return bool(whole == one + other)


def _pieces(text: str, skipped: bool) -> Iterator[str]:
    """A text cut into pieces that a tokenizer handles well.

    At line ends; in a line that goes on, before a blank, which is left out where ``skipped``, so
    that the tokens are those of the whole; at any place in one that has no blanks.
    """
    start = 0
    while start < len(text):
        stop = text.find("\n", start + _PIECE, start + _LINE) + 1
        if not stop and start + _LINE < len(text):
            stop = max(text.rfind(" ", start + _PIECE, start + _LINE), 0) or start + _LINE
        stop = stop or len(text)
        yield text[start:stop]
        start = stop + (skipped and text[stop : stop + 1] == " ")
