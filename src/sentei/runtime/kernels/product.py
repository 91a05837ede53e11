"""Sparse and dense matrix products over panels.

Layout of the weights (``layout.py``): for each output a run of groups. A group of fp32 is one
nonzero, of bf16 two, of int8 four: *arbitrary* nonzeros of the row, whose activation rows are
interleaved on the way so that the dot unit works at full width. ``rows`` has a run for each
output. ``blocks`` has one for four outputs, which share what is loaded and interleaved; with all
inputs in it, it is the dense product.

Cost of one group over 64 tokens (AVX-512), rows: int8 4 loads, 8 interleavings, 4 dots for 256
multiplications; bf16 4, 4, 4 for 128; fp32 4 loads and multiply-adds for 64. Blocks: four times the
dots for the same loads and interleavings. The interleavings (two a cycle) bound int8 rows, the dots
(two a cycle) everything else. Share of that roof on BERT-base's sizes: int8 rows 56 to 67 %, bf16
43 to 48 %, fp32 45 to 52 % (what is missing are activations out of the nearest cache), blocks of
int8 76 to 81 %, of bf16 84 to 87 % (`python -m benchmarks.runtime_kernels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cache
from typing import Literal

from sentei.runtime.cpu import Precision, Target
from sentei.runtime.ir import INDEX, POINTER, Function, Value, lanes
from sentei.runtime.kernels import activation
from sentei.runtime.kernels.kernel import (
    FLOATS,
    GRANULE,
    INTEGERS,
    Kernel,
    in_halves,
    joined,
    pair_order,
    store_half,
)

BLOCK = 4
"""Outputs of a run of blocks."""

GROUP = {"fp32": 1, "bf16": 2, "int8": 4}
"""Nonzeros of a group."""

TILE = 64
"""Outputs whose sums wait while one piece of the inputs after the other is read."""

WEIGHT_BYTES = 4
"""Of a group's weights for one output, in every precision."""


def group_bytes(precision: Precision, outputs: int, *, shared: bool) -> int:
    """Of a group: weights, then the inputs' numbers times 8, two bytes each.

    Of rows side by side each has its own inputs, one after the other; blocks share them.
    """
    inputs = 2 * GROUP[precision]
    return WEIGHT_BYTES * outputs + inputs if shared else (WEIGHT_BYTES + inputs) * outputs


class Word(IntEnum):
    """Words of a product's arguments."""

    GROUPS = 0  # the stream
    STARTS = auto()  # i64 (runs + 1,): number of the first group
    FACTS = auto()  # 16 bytes an output: its row, its bias, its scale, what sums begin with
    RUNS = auto()  # or tiles, where inputs are taken in pieces
    PIECES = auto()
    IN = auto()  # slots
    OUT = auto()
    RESIDUAL = auto()
    SCALE = auto()


Store = Literal["float", "half", "pairs"]


@dataclass(frozen=True)
class Form:
    """What one product's kernel does.

    ``store`` is how an output row is written: ``float``, ``half`` in the tokens' own order, or
    ``pairs``, half as products read it. ``pieces``: the inputs are taken so many at a time that
    they stay in the nearest cache; the sums of a tile wait in scratch.
    """

    precision: Precision
    outputs: int
    shared: bool
    width: int
    activation: str = ""
    residual: bool = False
    store: Store = "float"
    pieces: bool = False

    @property
    def name(self) -> str:
        """Its symbol."""
        kind = "blocks" if self.shared else f"rows{self.outputs}"
        words = ("product", self.precision, kind, str(self.width), self.activation)
        extra = ("residual",) * self.residual + (self.store,) + ("pieces",) * self.pieces
        return "_".join(filter(None, (*words, *extra)))


@cache
def build(form: Form, target: Target) -> Function:
    """The kernel of a product."""
    product = _Product(form, target)
    kernel, f = product.kernel, product.kernel.f
    first, last = kernel.share(kernel.argument(Word.RUNS))
    if not form.pieces:
        with f.loop(first, last) as run:
            product.run(run.index, begin="facts", end="write")
        return kernel.f
    pieces = kernel.argument(Word.PIECES)
    count = TILE // form.outputs
    with f.loop(first, last) as tile:
        start = tile.index * pieces * count
        end = start + (pieces - 1) * count
        with f.loop(start, start + count) as run:
            product.run(run.index, begin="facts", end="keep")
        with f.loop(start + count, end) as run:
            product.run(run.index, begin="kept", end="keep")
        with f.loop(end, end + count) as run:
            product.run(run.index, begin="kept", end="write")
    return kernel.f


class _Product:
    """A product's kernel while it is written."""

    def __init__(self, form: Form, target: Target) -> None:
        self.form, self.target = form, target
        self.kernel = kernel = Kernel(form.name, target)
        self.source = kernel.buffer(kernel.argument(Word.IN), kernel.item)
        self.groups, self.starts, self.facts = (
            kernel.argument(word, POINTER) for word in (Word.GROUPS, Word.STARTS, Word.FACTS)
        )
        self.write = _Writer(kernel, form)
        granules = form.width // GRANULE
        short = form.outputs > 1 and not target.wide
        self.strip = 1 if short else granules
        self.strips = range(0, granules, self.strip)
        self.type = INTEGERS if form.precision == "int8" else FLOATS
        self.size = group_bytes(form.precision, form.outputs, shared=form.shared)

    def run(
        self,
        run: Value,
        *,
        begin: Literal["facts", "kept"],
        end: Literal["keep", "write"],
    ) -> None:
        """The sums of a run, from where they stand, to where they go."""
        form = self.form
        span = [self.starts.load(INDEX, run * 8 + place, 8) for place in (0, 8)]
        facts = self.facts.at(run * (16 * form.outputs))
        for start in self.strips:
            sums: list[Value] = []
            for row in range(form.outputs):
                here = facts.at(16 * row)
                sums += self._first(here) if begin == "facts" else self._kept(here, start)
            sums = self._sums(span[0], span[1], sums, start)
            for row in range(form.outputs):
                here, values = facts.at(16 * row), sums[row * self.strip : (row + 1) * self.strip]
                if end == "write":
                    self.write.row(here, values, start)
                    continue
                for i, value in enumerate(values):
                    self._place(here).store(value, 4 * GRANULE * (start + i), 4)

    def _first(self, facts: Value) -> list[Value]:
        place, scalar = (12, "i32") if self.form.precision == "int8" else (4, "float")
        return [facts.load(scalar, place, 4).spread(GRANULE)] * self.strip

    def _kept(self, facts: Value, start: int) -> list[Value]:
        place = self._place(facts)
        return [place.load(self.type, 4 * GRANULE * (start + i), 4) for i in range(self.strip)]

    def _place(self, facts: Value) -> Value:
        """Where an output's sums wait."""
        row = facts.load("i32", 0, 4).convert("zext", INDEX) & (TILE - 1)
        return self.kernel.scratch.at(row * (4 * self.form.width))

    def _sums(self, begin: Value, end: Value, sums: list[Value], start: int) -> list[Value]:
        """All groups of a run, added to its sums; in several sets where they would wait."""
        f, form, groups = self.kernel.f, self.form, self.groups
        sets = _sets(form, self.target)
        if sets > 1:
            spare = [f.number(self.type, 0)] * (len(sums) * (sets - 1))
            whole = begin + (end - begin) / sets * sets
            with f.loop(begin, whole, sets, [*sums, *spare]) as loop:
                for number in range(sets):
                    part = loop.values[number * len(sums) : (number + 1) * len(sums)]
                    group = groups.at(loop.index * self.size + number * self.size)
                    loop.next += _add(
                        f, form, self.target, self.source, group, part, start, self.strip
                    )
            sums, begin = _tree(loop.values, len(sums)), whole
        with f.loop(begin, end, 1, sums) as loop:
            group = groups.at(loop.index * self.size)
            loop.next = _add(
                f, form, self.target, self.source, group, loop.values, start, self.strip
            )
        return loop.values


def _sets(form: Form, target: Target) -> int:
    """Sets of sums that groups take in turn, so that a dot need not wait for the one before."""
    if form.outputs > 1 or not target.wide:
        return 1
    return {64: 2, 32: 4, 16: 4}[form.width]


def _tree(values: list[Value], size: int) -> list[Value]:
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    while len(parts) > 1:
        parts = [
            [a + b for a, b in zip(left, right, strict=True)]
            for left, right in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _add(
    f: Function,
    form: Form,
    target: Target,
    source: Value,
    group: Value,
    sums: list[Value],
    start: int,
    strip: int,
) -> list[Value]:
    """A group's products, added to the sums of its outputs."""
    result: list[Value] = []
    first = WEIGHT_BYTES * form.outputs
    inputs: list[Value] = []
    if form.shared:
        inputs = _inputs(f, form, _rows(f, form, source, group, first), start, strip)
    step = group_bytes(form.precision, 1, shared=False)
    for row in range(form.outputs):
        weight, place = group, WEIGHT_BYTES * row
        if not form.shared:
            weight, place = group.at(step * row), 0
            rows = _rows(f, form, source, weight, WEIGHT_BYTES)
            inputs = _inputs(f, form, rows, start, strip)
        spread = weight.load("i32", place, 2).spread(GRANULE)
        for granule, values in enumerate(inputs):
            result.append(_dot(f, form, target, spread, values, sums[row * strip + granule]))
    return result


def _rows(f: Function, form: Form, source: Value, group: Value, first: int) -> list[Value]:
    """Where the activations of a group's inputs begin."""
    count = GROUP[form.precision]
    row_bytes = form.width * 4 // count
    rows = []
    for number in range(count):
        index = group.load("i16", first + 2 * number, 2)
        rows.append(source.at(index.convert("zext", INDEX) * (row_bytes // 8)))
    return rows


def _dot(
    f: Function, form: Form, target: Target, weight: Value, values: Value, total: Value
) -> Value:
    if form.precision == "fp32":
        return f.fma(weight.as_bits(FLOATS), values, total)
    if form.precision == "bf16":
        return f.call(
            "llvm.x86.avx512bf16.dpbf16ps.512",
            FLOATS,
            total,
            values.as_bits("<32 x bfloat>"),
            weight.as_bits("<32 x bfloat>"),
        )
    bytes_ = weight.as_bits("<64 x i8>")
    if target.isa == "avx512":
        return f.call("llvm.x86.avx512.vpdpbusd.512", INTEGERS, total, values, bytes_)
    return in_halves(f, "llvm.x86.avx512.vpdpbusd.256", INTEGERS, total, values, bytes_)


def _inputs(f: Function, form: Form, rows: list[Value], start: int, strip: int) -> list[Value]:
    """The activations of a group, granule by granule, those of a token side by side."""
    width = form.width
    if form.precision == "fp32":
        return [rows[0].load(FLOATS, 4 * GRANULE * (start + i), 4) for i in range(strip)]
    if form.precision == "int8":
        return _quads(f, width, rows)[start : start + strip]
    if width == 16:
        a, b = (row.load("<16 x i16>", 0, 2) for row in rows)
        return [f.shuffle(a, b, [16 * k + t for t in range(16) for k in range(2)])]
    inputs = []
    for half in range(width // 32):
        a, b = (row.load("<32 x i16>", 64 * half, 2) for row in rows)
        inputs += _interleaved(f, a, b, 8)
    return inputs


def _quads(f: Function, width: int, rows: list[Value]) -> list[Value]:
    """The bytes of four inputs, those of a token side by side."""
    if width == 64:
        a, b, c, d = (row.load("<64 x i8>", 0, 1) for row in rows)
        pairs = [_interleaved(f, a, b, 16), _interleaved(f, c, d, 16)]
        inputs = []
        for left, right in zip(*pairs, strict=True):
            words = (left.as_bits("<32 x i16>"), right.as_bits("<32 x i16>"))
            inputs += [one.as_bits("<64 x i8>") for one in _interleaved(f, *words, 8)]
        return inputs
    a, b, c, d = (row.load(lanes(width, "i8"), 0, 1) for row in rows)
    if width == 32:
        left, right = joined(f, [a, b]), joined(f, [c, d])
        return [
            f.shuffle(left, right, [32 * k + 16 * j + t for t in range(16) for k in range(4)])
            for j in range(2)
        ]
    four = joined(f, [a, b, c, d])
    return [f.shuffle(four, four, [16 * k + t for t in range(16) for k in range(4)])]


def _interleaved(f: Function, a: Value, b: Value, lane: int) -> list[Value]:
    """The low halves of the 128-bit lanes of two vectors in turns, then the high halves."""
    count = int(a.type[1:].split(" x ")[0])
    return [
        f.shuffle(
            a,
            b,
            [
                start + half + item + side * count
                for start in range(0, count, lane)
                for item in range(lane // 2)
                for side in range(2)
            ],
        )
        for half in (0, lane // 2)
    ]


class _Writer:
    """What becomes of a row of sums: scaled, activated, added to the residual, stored."""

    def __init__(self, kernel: Kernel, form: Form) -> None:
        self.kernel, self.form, self.f = kernel, form, kernel.f
        self.out = kernel.buffer(kernel.argument(Word.OUT), kernel.item)
        if form.residual:
            self.residual = kernel.buffer(kernel.argument(Word.RESIDUAL), kernel.item)
        if form.precision == "int8":
            self.scales = kernel.buffer(kernel.argument(Word.SCALE), kernel.item)

    def row(self, facts: Value, sums: Sequence[Value], start: int) -> None:
        """Write one output of some granules."""
        f, form = self.f, self.form
        number = facts.load("i32", 0, 4).convert("zext", INDEX)
        values = list(sums)
        if form.precision == "int8":
            bias, scale = (facts.load("float", place, 4).spread(GRANULE) for place in (4, 8))
            values = [
                f.fma(
                    value.convert("sitofp", FLOATS)
                    * self.scales.load(FLOATS, 4 * GRANULE * (start + i), 4),
                    scale,
                    bias,
                )
                for i, value in enumerate(values)
            ]
        if form.activation:
            exact = form.store == "float"
            values = [activation.apply(f, v, form.activation, exact=exact) for v in values]
        if form.store != "float":
            place = self.out.at(number * (2 * form.width) + 2 * GRANULE * start)
            count = GRANULE * len(values)
            order = pair_order(count) if form.store == "pairs" else range(count)
            store_half(f, values, place, self.kernel.target, order=list(order))
            return
        row = number * (4 * form.width) + 4 * GRANULE * start
        for i, value in enumerate(values):
            if form.residual:
                value = value + self.residual.at(row).load(FLOATS, 4 * GRANULE * i, 4)
            self.out.at(row).store(value, 4 * GRANULE * i, 4)
