"""What an encoder computes, straight from its description, one sequence at a time, in torch."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sentei.runtime.encoder import Encoder, Layer, Linear, Norm
from sentei.runtime.packed import Packed

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class ReferenceProgram:
    """As ``sentei.runtime.program.Program``, and as exact as ``dtype``."""

    def __init__(
        self,
        encoder: Encoder,
        precision: str = "auto",
        threads: int | None = None,
        isa: str | None = None,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.encoder, self.dtype = copy.deepcopy(encoder), dtype  # not the model's memory
        self.precision = "fp32" if precision == "auto" else precision
        self.plan = f"the reference, {dtype}"
        self.runs = 0
        self.closed = False

    def run(self, packed: Packed, out: np.ndarray) -> None:
        self.runs += 1
        if packed.ids is not None:
            embeddings = self.encoder.embeddings
            pairs = zip(embeddings.tables, packed.ids, strict=True)
            hidden = self.norm(
                sum(self.tensor(table[ids]) for table, ids in pairs), embeddings.norm
            )
        else:
            assert packed.rows.dtype == np.float32
            hidden = self.tensor(packed.rows)
        start = 0
        for length in packed.lengths.tolist():
            part = slice(start, start + length)
            masked = None if packed.masked is None else torch.from_numpy(packed.masked[part])
            out[packed.out[part]] = self.sequence(hidden[part], masked).float().numpy()
            start += length
        assert start == len(packed.out) == len(hidden)

    def close(self) -> None:
        self.closed = True

    def sequence(self, hidden: Tensor, masked: Tensor | None) -> Tensor:
        first = self.encoder.norm_first
        act = ACTIVATIONS[self.encoder.activation]
        for layer in self.encoder.layers:
            x = self.norm(hidden, layer.attention_norm) if first else hidden
            hidden = hidden + self.linear(self.attention(x, masked, layer), layer.out)
            hidden = hidden if first else self.norm(hidden, layer.attention_norm)
            x = self.norm(hidden, layer.ffn_norm) if first else hidden
            hidden = hidden + self.linear(act(self.linear(x, layer.ffn_in)), layer.ffn_out)
            hidden = hidden if first else self.norm(hidden, layer.ffn_norm)
        final = self.encoder.final_norm
        return hidden if final is None else self.norm(hidden, final)

    def attention(self, x: Tensor, masked: Tensor | None, layer: Layer) -> Tensor:
        query, key, value = (
            self.linear(x, linear).unflatten(-1, (layer.heads, layer.head_size)).transpose(0, 1)
            for linear in (layer.query, layer.key, layer.value)
        )
        scores = query @ key.transpose(1, 2) * layer.scale
        if self.encoder.relative is not None:
            scores = scores + self.relative(len(x), layer)
        if masked is not None:
            if masked.all():
                scores = torch.zeros_like(scores)
            else:
                scores = scores.masked_fill(masked, -torch.inf)
        return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)

    def relative(self, length: int, layer: Layer) -> Tensor:
        table = self.tensor(self.encoder.relative)
        if layer.relative_heads is not None:
            table = table[list(layer.relative_heads)]
        reach = table.shape[1] // 2
        steps = torch.arange(length)
        return table[:, steps[None, :] - steps[:, None] + reach]

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.dtype)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return F.linear(x, self.tensor(linear.weight), self.tensor(linear.bias))

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        shape = (x.shape[-1],)
        return F.layer_norm(x, shape, self.tensor(norm.weight), self.tensor(norm.bias), norm.eps)
