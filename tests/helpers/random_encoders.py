"""Random encoders and batches, as the engine's core gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from helpers.encoder_reference import ReferenceProgram
from sentei.runtime.encoder import Embeddings, Encoder, Layer, Linear, Norm
from sentei.runtime.packed import Packed

WORDS, POSITIONS = 50, 512


class Random:
    """Arrays drawn one after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def array(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def linear(self, outputs: int, inputs: int, density: float, name: str = "w") -> Linear:
        """With unit variance kept, whatever the density; some outputs have no weight."""
        weight = self.array(outputs, inputs) * (self.rng.random((outputs, inputs)) < density)
        weight[self.rng.random(outputs) < 0.1 * (density < 1)] = 0
        weight /= np.float32(max(1, inputs * density) ** 0.5)
        return Linear(weight.astype(np.float32), 0.1 * self.array(outputs), name)

    def norm(self, hidden: int) -> Norm:
        return Norm(1 + 0.1 * self.array(hidden), 0.1 * self.array(hidden), 1e-12)

    def layer(self, hidden: int, heads: int, head_size: int, neurons: int, density: float) -> Layer:
        width = heads * head_size
        query, key, value = (self.linear(width, hidden, density, name) for name in "qkv")
        return Layer(
            query, key, value,
            out=self.linear(hidden, width, density, "o"),
            heads=heads, head_size=head_size, scale=head_size**-0.5,
            ffn_in=self.linear(neurons, hidden, density, "in"),
            ffn_out=self.linear(hidden, neurons, density, "out"),
            attention_norm=self.norm(hidden), ffn_norm=self.norm(hidden),
        )  # fmt: skip


def encoder(
    *,
    hidden: int = 32,
    heads: Sequence[int] = (2, 1),
    head_size: int = 8,
    neurons: Sequence[int] | None = None,
    density: float = 0.3,
    norm_first: bool = False,
    activation: str = "gelu",
    relative: bool = False,
    tables: int = 3,
    seed: int = 0,
) -> Encoder:
    """An encoder of as many layers as ``heads`` has; without embeddings where ``tables`` is 0."""
    some = Random(seed)
    sizes = neurons or [2 * hidden] * len(heads)
    counts = (WORDS, POSITIONS, 2)[:tables]
    layers = [
        some.layer(hidden, count, head_size, size, density)
        for count, size in zip(heads, sizes, strict=True)
    ]
    if relative:
        kept = [np.sort(some.rng.permutation(max(heads))[:count]).tolist() for count in heads]
        layers = [
            replace(one, relative_heads=None if len(rows) == max(heads) else tuple(rows))
            for one, rows in zip(layers, kept, strict=True)
        ]
    return Encoder(
        layers=tuple(layers),
        hidden=hidden,
        norm_first=norm_first,
        activation=activation,
        final_norm=some.norm(hidden) if norm_first else None,
        relative=some.array(max(heads), 2 * POSITIONS - 1) if relative else None,
        embeddings=(
            Embeddings(tuple(some.array(count, hidden) for count in counts), some.norm(hidden))
            if tables
            else None
        ),
    )


def batch(
    encoder: Encoder, lengths: Sequence[int], *, masked: float = 0.0, rows: bool = False,
    seed: int = 0,
) -> Packed:  # fmt: skip
    """Sequences of random tokens, written to rows of a larger output in mixed order."""
    some = Random(seed)
    tokens = sum(lengths)
    ids = None
    if not rows and encoder.embeddings is not None:
        sizes = [len(table) for table in encoder.embeddings.tables]
        ids = tuple(some.rng.integers(0, size, tokens) for size in sizes)
    mask = some.rng.random(tokens) < masked
    return Packed(
        lengths=np.array(lengths, np.int64),
        ids=ids,
        rows=some.array(tokens, encoder.hidden) if ids is None else None,
        masked=mask if masked else None,
        out=some.rng.permutation(tokens + 3)[:tokens],
    )


def outputs(program, packed: Packed, hidden: int) -> np.ndarray:
    """What a program writes, into zeros."""
    out = np.zeros((len(packed.out) + 3, hidden), np.float32)
    program.run(packed, out)
    return out


def expected(encoder: Encoder, packed: Packed) -> np.ndarray:
    """The same by torch in float64."""
    return outputs(ReferenceProgram(encoder), packed, encoder.hidden)


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference, relative to the largest number of all."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())
