"""What an encoder computes, in numbers alone: no architecture's names, neither torch nor code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sentei.runtime.nonzeros import Array as Array
from sentei.runtime.nonzeros import Nonzeros, Sparse

Activation = Literal["gelu", "gelu_tanh", "relu"]


class Unsupported(ValueError):
    """The engine cannot run this; the message says what and why."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A product: ``x @ weight.T + bias``.

    All arrays here are float32 and contiguous, and may share the model's memory.
    """

    weight: Array | Sparse
    """(out, in)"""

    bias: Array
    """(out,); zeros where the model has none."""

    name: str
    """Plain name of the weight in the model."""

    def nonzeros(self) -> Nonzeros:
        """What is not zero of the weight.

        Raises:
            Unsupported: It is read only now, and is not finite.
        """
        weight = self.weight
        return Nonzeros.of(weight) if isinstance(weight, np.ndarray) else weight.nonzeros()


@dataclass(frozen=True, eq=False)
class Norm:
    """A LayerNorm over the hidden state."""

    weight: Array
    bias: Array
    eps: float


@dataclass(frozen=True, eq=False)
class Layer:
    """One block: attention, then the feed-forward network."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    heads: int
    head_size: int

    scale: float
    """What scores are multiplied by: ``1 / sqrt(head_size)``, whatever heads were removed."""

    ffn_in: Linear
    ffn_out: Linear
    attention_norm: Norm
    ffn_norm: Norm

    relative_heads: tuple[int, ...] | None = None
    """The rows of ``Encoder.relative`` that the heads use, where some were removed; None: all, in
    their order."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Rows of tables, summed and normalized."""

    tables: tuple[Array, ...]
    """Each (n, hidden): words, positions, and token types where the model has them."""

    norm: Norm


@dataclass(frozen=True, eq=False)
class Encoder:
    """Blocks, one after the other, over a hidden state."""

    layers: tuple[Layer, ...]
    hidden: int

    norm_first: bool
    """Whether norms are before the attention and before the feed-forward network (ViT), and not
    after each residual sum (BERT)."""

    activation: Activation

    final_norm: Norm | None = None
    """After the last block."""

    relative: Array | None = None
    """(heads, 2 * reach + 1): ``relative[h, j - i + reach]`` is added to the scaled score of key j
    for query i (MPNet)."""

    embeddings: Embeddings | None = None
    """None where a model's embeddings do more: then torch computes them."""
