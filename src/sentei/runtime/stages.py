"""An encoder as a list of operations: which kernel, on which buffers, in which order.

What one panel needs until the next attention is one chain, so that its activations stay in the
cache. Attention needs all panels of a sequence, and stands between chains.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sentei.runtime import plan
from sentei.runtime.cpu import Precision, Target
from sentei.runtime.encoder import Array, Encoder, Layer, Linear, Norm
from sentei.runtime.ir import Function
from sentei.runtime.kernels import attention, convert, edge, norm, product
from sentei.runtime.kernels.kernel import LARGEST_LANE, WIDTHS, Slot

Build = Callable[[int], Function]
"""A kernel for a width."""


@dataclass(frozen=True, eq=False)
class Operation:
    """A kernel for each width, by name, and its arguments, which point into ``keep``."""

    kernels: tuple[str, ...]
    arguments: Array
    divisible: bool = True
    """Whether a panel's work can be divided between threads."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Operations on an item one after the other; the items are panels, or blocks of queries."""

    operations: tuple[Operation, ...]
    heads: int = 0
    """Of an attention: the parts of its items."""


@dataclass
class Stages:
    """What is compiled and run."""

    encoder: Encoder
    precision: Precision
    target: Target
    functions: dict[str, Function] = field(default_factory=dict)
    steps: list[plan.Step] = field(default_factory=list)
    keep: list[object] = field(default_factory=list)
    """Arrays that arguments point into."""

    @property
    def emit(self) -> convert.Emit:
        """What products read."""
        emits: dict[Precision, convert.Emit] = {"fp32": "none", "bf16": "half", "int8": "int8"}
        return emits[self.precision]

    @property
    def half_attention(self) -> bool:
        """Whether attention works with pairs of bf16."""
        return self.precision != "fp32" and self.target.bf16

    @property
    def size(self) -> int:
        """Bytes of a number that products read."""
        return {"none": 4, "half": 2, "int8": 1}[self.emit]

    def feature_bytes(self, tables: int) -> dict[Slot, int]:
        """Bytes of each buffer for one token."""
        encoder = self.encoder
        # Products write whole runs or tiles of outputs.
        mixed = _whole(max(layer.heads * layer.head_size for layer in encoder.layers))
        inner = _whole(max(len(layer.ffn_in.bias) for layer in encoder.layers))
        head = 2 if self.half_attention else 4
        return {
            Slot.STREAM: 4 * _whole(encoder.hidden),
            Slot.SUM: 4 * _whole(encoder.hidden),
            Slot.INPUT: self.size * encoder.hidden,
            Slot.SCALE: 4,
            Slot.QUERY: head * mixed,
            Slot.KEY: head * mixed,
            Slot.VALUE: head * mixed,
            Slot.CONTEXT: 4 * mixed,
            Slot.MIXED: self.size * mixed,
            Slot.INNER: (4 if self.emit == "none" else 2) * inner,
            Slot.NARROW: self.size * inner,
            Slot.BIAS: 4,
            Slot.ROWS: 8 * tables,
            Slot.OUT: 8,
        }

    def body(self) -> list[Chain]:
        """All of it behind the embeddings."""
        encoder = self.encoder
        layers = encoder.layers
        chain: list[Operation] = []
        result = []
        for number, layer in enumerate(layers):
            if encoder.norm_first:
                chain.append(self._norm(layer.attention_norm, Slot.STREAM, Slot.SUM))
            chain += self._projections(layer)
            result += [Chain(tuple(chain)), self._attention(layer)]
            chain = self._after(layer, last=number == len(layers) - 1)
        source = Slot.STREAM
        if encoder.final_norm is not None:
            chain.append(self._norm(encoder.final_norm, Slot.STREAM, Slot.SUM, emit="none"))
            source = Slot.SUM
        chain.append(self._edge(lambda w: edge.leave(w, self.target), source, Slot.OUT))
        return [*result, Chain(tuple(chain))]

    def enter(self, *, rows: bool) -> list[Operation]:
        """The embeddings: summed from rows of tables, or given as they are."""
        encoder = self.encoder
        embeddings = None if rows else encoder.embeddings
        count = 1 if embeddings is None else len(embeddings.tables)
        first = embeddings.norm if embeddings is not None else None
        target = Slot.STREAM if first is None else Slot.SUM
        chain = [self._edge(lambda w: edge.enter(count, w, self.target), target, Slot.ROWS)]
        if first is not None:
            emit = "none" if encoder.norm_first else self.emit
            chain.append(self._norm(first, Slot.SUM, Slot.STREAM, emit=emit))
        elif not encoder.norm_first:
            chain += self._convert("float", encoder.hidden, Slot.STREAM, Slot.INPUT)
        return chain

    def _projections(self, layer: Layer) -> list[Operation]:
        read = self._read(Slot.SUM if self.encoder.norm_first else Slot.STREAM, Slot.INPUT)
        store: product.Store = "half" if self.half_attention else "float"
        scale = layer.scale / math.log(2)  # the softmax is of powers of two
        return [
            self._product(layer.query, read, Slot.QUERY, scale, store=store),
            self._product(layer.key, read, Slot.KEY, store=store),
            self._product(layer.value, read, Slot.VALUE, store=store),
        ]

    def _after(self, layer: Layer, *, last: bool) -> list[Operation]:
        """From attention's result to the end of the layer."""
        first = self.encoder.norm_first
        total = Slot.STREAM if first else Slot.SUM
        normed = Slot.SUM if first else Slot.STREAM
        inner = len(layer.ffn_in.bias)
        width = layer.heads * layer.head_size
        mixed, narrow = self._read(Slot.CONTEXT, Slot.MIXED), self._read(Slot.INNER, Slot.NARROW)
        stores: dict[convert.Emit, product.Store] = {
            "none": "float",
            "half": "pairs",
            "int8": "half",
        }
        store = stores[self.emit]
        narrow = Slot.INNER if self.emit == "half" else narrow
        chain = [
            *self._convert("float", width, Slot.CONTEXT, Slot.MIXED),
            self._product(layer.out, mixed, total, residual=True),
        ]
        after = layer.ffn_norm if first else layer.attention_norm
        chain += [
            self._norm(after, Slot.STREAM if first else Slot.SUM, normed),
            self._product(
                layer.ffn_in,
                self._read(normed, Slot.INPUT),
                Slot.INNER,
                activation=self.encoder.activation,
                store=store,
            ),
            *(self._convert("half", inner, Slot.INNER, Slot.NARROW) if store == "half" else ()),
            self._product(layer.ffn_out, narrow, total, residual=True),
        ]
        if not first:
            emit = "none" if last else self.emit
            chain.append(self._norm(layer.ffn_norm, Slot.SUM, Slot.STREAM, emit=emit))
        return chain

    def _read(self, floats: Slot, converted: Slot) -> Slot:
        """Which buffer a product reads."""
        return floats if self.emit == "none" else converted

    def _add(self, build: Build, arguments: Array, widths: tuple[int, ...] = WIDTHS) -> Operation:
        names = []
        for width in widths:
            function = build(width)
            self.functions.setdefault(function.name, function)
            names.append(function.name)
        self.keep.append(arguments)
        return Operation(tuple(names), arguments)

    def _edge(self, build: Build, panel: Slot, rows: Slot) -> Operation:
        return self._add(build, _words(self.encoder.hidden, panel, rows))

    def _convert(
        self, source: convert.Source, features: int, floats: Slot, out: Slot
    ) -> list[Operation]:
        if self.emit == "none":
            return []
        words = _words(features, floats, out, Slot.SCALE)
        return [self._add(lambda w: convert.build(source, self.emit, w, self.target), words)]

    def _norm(
        self, one: Norm, source: Slot, out: Slot, emit: convert.Emit | None = None
    ) -> Operation:
        weights = np.ascontiguousarray(np.stack([one.weight, one.bias], axis=1), np.float32)
        self.keep.append(weights)
        floats = map(_bits, (one.eps, 1 / len(one.weight)))
        words = _words(
            len(one.weight), source, out, Slot.INPUT, Slot.SCALE, weights.ctypes.data, *floats
        )
        kind = self.emit if emit is None else emit
        made = self._add(lambda w: norm.build(kind, w, self.target), words)
        return Operation(made.kernels, made.arguments, divisible=False)

    def _product(
        self,
        linear: Linear,
        source: Slot,
        out: Slot,
        factor: float = 1.0,
        *,
        activation: str = "",
        residual: bool = False,
        store: product.Store = "float",
    ) -> Operation:
        runs, step = plan.product(linear, factor, self.precision, self.target)
        self.steps.append(step)
        self.keep.append(runs)
        words = _words(
            runs.groups.ctypes.data,
            runs.starts.ctypes.data,
            runs.facts.ctypes.data,
            runs.runs,
            runs.pieces,
            source,
            out,
            Slot.STREAM,
            Slot.SCALE,
        )

        def build(width: int) -> Function:
            form = product.Form(
                self.precision,
                runs.outputs,
                runs.shared,
                width,
                activation,
                residual,
                store,
                pieces=runs.pieces > 1,
            )
            return product.build(form, self.target)

        return self._add(build, words)

    def _attention(self, layer: Layer) -> Chain:
        relative, reach = self._relative(layer)
        words = _words(layer.head_size, layer.heads, relative, reach)

        def build(width: int) -> Function:
            form = attention.Form(width, self.half_attention, relative != 0)
            return attention.build(form, self.target)

        return Chain((self._add(build, words),), heads=layer.heads)

    def _relative(self, layer: Layer) -> tuple[int, int]:
        """Address and reach of the bias by distance, backwards, in base 2, room at its ends."""
        table = self.encoder.relative
        if table is None:
            return 0, 0
        if layer.relative_heads is not None:
            table = table[list(layer.relative_heads)]
        padded = np.pad(table[:, ::-1] / np.float32(math.log(2)), ((0, 0), (LARGEST_LANE,) * 2))
        backwards = np.ascontiguousarray(padded, np.float32)
        self.keep.append(backwards)
        return backwards.ctypes.data, backwards.shape[1] // 2


def _bits(number: float) -> int:
    """A float in the low half of a word."""
    return int(struct.unpack("<q", struct.pack("<fi", number, 0))[0])


def _whole(outputs: int) -> int:
    return -(-outputs // product.TILE) * product.TILE


def _words(*numbers: int) -> Array:
    return np.array([int(number) for number in numbers], np.int64)
