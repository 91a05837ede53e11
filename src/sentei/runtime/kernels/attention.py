"""Attention of one head for a block of queries: 16, 32 or 64 neighbouring lanes of a panel.

Lanes are queries, so that the softmax needs no sum across lanes. S = K Q goes to scratch, (keys,
lanes); its powers of two overwrite it; then O = V P. The queries come scaled by log2(e) times the
scale of the scores (that is in their weights), so that the softmax is of powers of two. With bf16,
features (of Q and K) and keys (of P and V) are taken in pairs by the dot unit: Q and K are
interleaved first, into scratch; V has neighbouring keys side by side.

A block may hold lanes of other sequences: they are computed and not written. Keys lie in parts, one
for each panel that the sequence is in; a sequence begins at an even lane and has an even number.

Cost for 64 queries, n keys and a head of 64, with bf16: 256 n dots, 12 operations for 16 powers;
81 to 86 % of the roof at 128 keys (`python -m benchmarks.runtime_kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cache

from sentei.runtime.cpu import Target
from sentei.runtime.ir import INDEX, POINTER, Function, Value, lanes
from sentei.runtime.kernels.activation import exp2
from sentei.runtime.kernels.kernel import (
    FLOATS,
    GRANULE,
    INTEGERS,
    Call,
    Kernel,
    Slot,
    splat,
)

BLOCKS = (16, 32, 64)
"""Lanes of a block of queries."""

NEVER = -1e30
"""Added to the score of a key that is not read; where all are, the softmax is uniform."""


class Word(IntEnum):
    """Words of the arguments."""

    SIZE = 0  # of a head; even
    HEADS = auto()
    RELATIVE = auto()  # address of fp32 (heads, 2 * REACH + 1), backwards, or 0
    REACH = auto()


class Block(IntEnum):
    """Words of a block of queries."""

    PANEL = 0
    WIDTH = auto()  # of the panel
    LANE = auto()  # the first
    FROM = auto()  # lanes of the block that are written: from, to
    TO = auto()
    PARTS = auto()  # the first part of the sequence's keys; how many
    COUNT = auto()
    KEYS = auto()  # tokens of the sequence
    POSITION = auto()  # of the first lane in the sequence; may be negative


class Part(IntEnum):
    """Words of a part of a sequence."""

    PANEL = 0
    WIDTH = auto()
    LANE = auto()
    COUNT = auto()
    BEFORE = auto()  # keys in parts before


@dataclass(frozen=True)
class Form:
    """What one kernel does: lanes of a block, pairs of bf16 or floats, a bias by distance."""

    width: int
    half: bool
    relative: bool

    @property
    def name(self) -> str:
        """Its symbol."""
        words = ("attention", "half" if self.half else "float", str(self.width))
        return "_".join((*words, *("relative",) * self.relative))


class _Head:
    """One head of one block while its kernel is written."""

    def __init__(self, form: Form, target: Target) -> None:
        self.form, self.target = form, target
        self.kernel = kernel = Kernel(form.name, target)
        self.f = kernel.f
        self.granules = form.width // GRANULE
        blocks = kernel.of_call(Call.BLOCKS, POINTER)
        self.block = blocks.at(kernel.item * (8 * len(Block)))
        self.size = kernel.argument(Word.SIZE)
        self.pairs = self.size / 2 if form.half else self.size
        self.keys = self.word(Block.KEYS)
        self.element = 2 if form.half else 4
        self.row = 4 * form.width
        # Scratch: the block's queries, then scores, then one part's keys in pairs.
        self.queries = kernel.scratch
        self.scores = self.queries.at(self.pairs * self.row)
        self.paired = self.scores.at(self.keys * self.row)

    def word(self, word: Block) -> Value:
        return self.block.load(INDEX, 8 * word, 8)

    def panel(self, slot: Slot, panel: Value, width: Value) -> Value:
        """Where a panel has this head's first feature."""
        start = self.kernel.part * self.size * width * self.element
        return self.kernel.buffer(slot, panel).at(start)

    def rows_at_once(self) -> int:
        """Rows of sums that fit into the registers beside what they are made of."""
        registers = self.granules * GRANULE // self.target.register_lanes
        free = self.target.registers - registers - 2
        most = max(1, min(8, free // registers))
        return 1 << (most.bit_length() - 1)


@cache
def build(form: Form, target: Target) -> Function:
    """The kernel of attention."""
    head = _Head(form, target)
    f = head.f
    _gather_queries(head)
    parts = head.kernel.of_call(Call.PARTS, POINTER).at(head.word(Block.PARTS) * (8 * len(Part)))
    count = head.word(Block.COUNT)
    largest = [splat(f, 2 * NEVER)] * head.granules
    with f.loop(0, count, 1, largest) as loop:
        part = parts.at(loop.index * (8 * len(Part)))
        loop.next = _scores(head, part, loop.values)
    sums = _softmax(head, loop.values)
    _values(head, parts, count, [splat(f, 1.0) / total for total in sums])
    return head.kernel.f


def _gather_queries(head: _Head) -> None:
    """The block's queries into scratch, features in pairs."""
    f, form = head.f, head.form
    width = head.word(Block.WIDTH)
    source = head.panel(Slot.QUERY, head.word(Block.PANEL), width)
    source = source.at(head.word(Block.LANE) * head.element)
    with f.loop(0, head.pairs) as loop:
        target = head.queries.at(loop.index * head.row)
        if form.half:
            _interleave(f, source.at(loop.index * 2 * width * 2), width, target, form.width)
        else:
            row = source.at(loop.index * width * 4)
            for i in range(head.granules):
                target.store(row.load(FLOATS, 4 * GRANULE * i, 4), 4 * GRANULE * i, 4)


def _interleave(f: Function, source: Value, width: Value, target: Value, count: int) -> None:
    """Two rows of bf16, ``width`` apart, as pairs."""
    half = lanes(GRANULE, "i16")
    for start in range(0, count, GRANULE):
        low = source.load(half, 2 * start, 2).convert("zext", INTEGERS)
        high = source.at(width * 2).load(half, 2 * start, 2).convert("zext", INTEGERS)
        target.store(low | (high << 16), 4 * start, 4)


def _scores(head: _Head, part: Value, largest: list[Value]) -> list[Value]:
    """S of a part's keys; the largest of each query so far."""
    f, form = head.f, head.form
    panel, width, lane, count, before = (part.load(INDEX, 8 * word, 8) for word in Part)
    keys = head.panel(Slot.KEY, panel, width)
    step = width * 4
    if form.half:
        # Whole granules that the part touches: a panel's rows are whole granules.
        first = lane / GRANULE * GRANULE
        last = (lane + count + (GRANULE - 1)) / GRANULE * GRANULE
        with f.loop(0, head.pairs) as pair, f.loop(first, last, GRANULE) as start:
            source = keys.at(pair.index * 2 * width * 2 + start.index * 2)
            target = head.paired.at((pair.index * width + start.index) * 4)
            _interleave(f, source, width, target, GRANULE)
        keys = head.paired
    bias = head.kernel.buffer(Slot.BIAS, panel)
    at_once = head.rows_at_once()
    whole = count / at_once * at_once

    def block(first: Value, rows: int, largest: list[Value]) -> list[Value]:
        key = lane + first
        sums = []
        for row in range(rows):
            added = bias.load("float", (key + row) * 4, 4).spread(GRANULE)
            sums += _biases(head, before + first + row, added)
        with f.loop(0, head.pairs, 1, sums) as loop:
            queries = head.queries.at(loop.index * head.row)
            place = keys.at(loop.index * step + key * 4)
            loop.next = _dots(head, queries, place, 4, rows, loop.values)
        place = head.scores.at((before + first) * head.row)
        for number, value in enumerate(loop.values):
            place.store(value, 4 * GRANULE * number, 4)
            i = number % head.granules
            largest = [*largest[:i], f.maximum(value, largest[i]), *largest[i + 1 :]]
        return largest

    with f.loop(0, whole, at_once, largest) as loop:
        loop.next = block(loop.index, at_once, loop.values)
    with f.loop(whole, count, 1, loop.values) as rest:
        rest.next = block(rest.index, 1, rest.values)
    return rest.values


def _biases(head: _Head, key: Value, added: Value) -> list[Value]:
    """What the scores of a key begin with."""
    if not head.form.relative:
        return [added] * head.granules
    kernel = head.kernel
    reach = kernel.argument(Word.REACH)
    table = kernel.argument(Word.RELATIVE, POINTER)
    # Backwards, so that neighbouring queries are neighbours: entry reach - (key - query).
    row = table.at(kernel.part * (reach * 2 + 1) * 4)
    here = row.at((reach - key + head.word(Block.POSITION)) * 4)
    return [here.load(FLOATS, 4 * GRANULE * i, 4) + added for i in range(head.granules)]


def _dots(
    head: _Head, rows: Value, place: Value, step: Value | int, count: int, sums: list[Value]
) -> list[Value]:
    """Add a row of the block times each of some scalars (pairs, with bf16), to their sums."""
    f, form = head.f, head.form
    values = [rows.load(FLOATS, 4 * GRANULE * i, 4) for i in range(head.granules)]
    result = []
    for row in range(count):
        scalar = place.load("i32", step * row, 2).spread(GRANULE)
        for i, value in enumerate(values):
            total = sums[row * head.granules + i]
            if form.half:
                pair = "<32 x bfloat>"
                operands = (total, value.as_bits(pair), scalar.as_bits(pair))
                name = "llvm.x86.avx512bf16.dpbf16ps.512"
                result.append(f.call(name, FLOATS, *operands))
            else:
                result.append(f.fma(value, scalar.as_bits(FLOATS), total))
    return result


def _softmax(head: _Head, largest: list[Value]) -> list[Value]:
    """Powers of two in the scores' place, with bf16 of two keys side by side; their sums."""
    f, form = head.f, head.form
    step, degree = (2, 3) if form.half else (1, 6)
    with f.loop(0, head.keys, step, [splat(f, 0.0)] * head.granules) as loop:
        place = head.scores.at(loop.index * head.row)
        target = head.scores.at(loop.index * (head.row // step))
        for i, (total, top) in enumerate(zip(loop.values, largest, strict=True)):
            powers = [
                exp2(f, place.load(FLOATS, head.row * k + 4 * GRANULE * i, 4) - top, degree)
                for k in range(step)
            ]
            for power in powers:
                total = total + power
            if form.half:
                low, high = (power.as_bits(INTEGERS) + 0x8000 for power in powers)
                target.store((low >> 16) | (high & -0x10000), 4 * GRANULE * i, 4)
            else:
                target.store(powers[0], 4 * GRANULE * i, 4)
            loop.next.append(total)
    return loop.values


def _values(head: _Head, parts: Value, count: Value, inverse: list[Value]) -> None:
    """O of all features, written where the block's lanes are the sequence's."""
    f = head.f
    at_once = head.rows_at_once()
    whole = head.size / at_once * at_once
    panel, width = head.word(Block.PANEL), head.word(Block.WIDTH)
    out = head.kernel.buffer(Slot.CONTEXT, panel).at(head.kernel.part * head.size * width * 4)
    out = out.at(head.word(Block.LANE) * 4)
    masks = _masks(head)

    def block(first: Value, rows: int) -> None:
        zeros = [splat(f, 0.0)] * (rows * head.granules)
        with f.loop(0, count, 1, zeros) as loop:
            part = parts.at(loop.index * (8 * len(Part)))
            loop.next = _weighted(head, part, first, rows, loop.values)
        for number, value in enumerate(loop.values):
            row, i = divmod(number, head.granules)
            place = out.at((first + row) * width * 4).at(4 * GRANULE * i)
            before = place.load(FLOATS, 0, 4)
            place.store(f.select(masks[i], value * inverse[i], before), 0, 4)

    with f.loop(0, whole, at_once) as features:
        block(features.index, at_once)
    with f.loop(whole, head.size) as features:
        block(features.index, 1)


def _weighted(head: _Head, part: Value, first: Value, rows: int, sums: list[Value]) -> list[Value]:
    """A part's values of some features, weighted, added to their sums."""
    f, form = head.f, head.form
    panel, width, lane, count, before = (part.load(INDEX, 8 * word, 8) for word in Part)
    values = head.panel(Slot.VALUE, panel, width)
    values = values.at((first * width + lane) * head.element)
    keys = 2 if form.half else 1
    with f.loop(0, count / keys, 1, sums) as loop:
        weights = head.scores.at((before / keys + loop.index) * head.row)
        place = values.at(loop.index * 4)
        loop.next = _dots(head, weights, place, width * head.element, rows, loop.values)
    return loop.values


def _masks(head: _Head) -> list[Value]:
    """Which lanes are the sequence's."""
    f = head.f
    first, last = (
        head.word(word).convert("trunc", "i32").spread(GRANULE) for word in (Block.FROM, Block.TO)
    )
    masks = []
    for granule in range(head.granules):
        numbers = ", ".join(f"i32 {GRANULE * granule + lane}" for lane in range(GRANULE))
        lane = Value(f, INTEGERS, f"<{numbers}>")
        masks.append(f.select(lane.less(first), lane.less(lane), lane.less(last)))
    return masks
