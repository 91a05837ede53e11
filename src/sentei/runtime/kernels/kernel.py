"""What all kernels have in common: how they are called, where their buffers lie, how they store.

A kernel handles one item: a panel (tokens side by side in 16, 32 or 64 lanes, features one after
the other) or a block of queries. Arguments are records of 8-byte words; the words' places are the
enumerations here, and what fills them is ``program.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto

from sentei.runtime.cpu import Target
from sentei.runtime.ir import INDEX, POINTER, Function, Value, count_of, lanes, scalar_of

GRANULE = 16
"""Lanes that all widths are multiples of; fp32 lanes of a 512-bit register."""

WIDTHS = (16, 32, 64)
"""Tokens of a panel."""

LARGEST_LANE = WIDTHS[-1]
"""Lanes that a block may hold before a sequence begins or after it ends, at most."""

FLOATS, INTEGERS = lanes(GRANULE, "float"), lanes(GRANULE, "i32")

SIGNATURE = (
    ("args", POINTER),
    ("call", POINTER),
    ("scratch", POINTER),
    ("item", INDEX),
    ("part", INDEX),
    ("parts", INDEX),
)


class Slot(IntEnum):
    """The buffers that a panel has."""

    STREAM = 0  # fp32 (hidden, P): the residual stream
    SUM = auto()  # fp32 (hidden, P): before a norm; or what a norm gave, where the norm is first
    INPUT = auto()  # (hidden, P): what a product reads, in the products' precision
    SCALE = auto()  # fp32 (P,): what a quantised token was divided by
    QUERY = auto()  # (heads * size, P)
    KEY = auto()
    VALUE = auto()
    CONTEXT = auto()  # fp32 (heads * size, P): what attention gave
    MIXED = auto()  # (heads * size, P): the same, in the products' precision
    INNER = auto()  # (neurons, P): after the activation
    NARROW = auto()  # (neurons, P): the same, in the products' precision
    BIAS = auto()  # fp32 (P,): added to the scores of each token as a key
    ROWS = auto()  # i64 (tables, P): addresses of the embeddings' rows
    OUT = auto()  # i64 (P,): addresses of the output's rows


class Call(IntEnum):
    """Words of the record of one call."""

    BUFFERS = 0  # addresses, (slots, panels)
    PANELS = auto()
    BLOCKS = auto()  # records of blocks of queries
    PARTS = auto()  # records of parts of sequences, as keys
    COUNTERS = auto()  # items that were taken, stage by stage
    BARRIER = auto()  # threads that arrived, and how often all did
    LENGTHS = auto()  # items of each kind of stage: panels, blocks
    CLASSES = auto()  # which of a kernel's three forms an item needs, kind by kind


class Kernel:
    """A function with a kernel's parameters.

    Args:
        name: Its symbol.
        target: The CPU.
    """

    def __init__(self, name: str, target: Target) -> None:
        self.f = Function(name, SIGNATURE)
        self.target = target
        (
            self.args,
            self.context,
            self.scratch,
            self.item,
            self.part,
            self.parts,
        ) = self.f.parameters

    def argument(self, word: int, type_: str = INDEX) -> Value:
        """A word of the kernel's own record."""
        return self.args.load(type_, 8 * word, 8)

    def of_call(self, word: Call, type_: str = INDEX) -> Value:
        """A word of the record of this call."""
        return self.context.load(type_, 8 * word, 8)

    def buffer(self, slot: Value | int, panel: Value) -> Value:
        """Where a panel's buffer begins."""
        table = self.of_call(Call.BUFFERS, POINTER)
        number = self.f.number(INDEX, slot) if isinstance(slot, int) else slot
        place = number * self.of_call(Call.PANELS) + panel
        return table.load(POINTER, place * 8, 8)

    def share(self, count: Value, multiple: int = 1) -> tuple[Value, Value]:
        """Begin and end of this part's share of some things, in multiples."""
        blocks = (count + (multiple - 1)) / multiple
        ends = [(blocks * at / self.parts) * multiple for at in (self.part, self.part + 1)]
        last = self.f.select(count.less(ends[1]), count, ends[1])
        return ends[0], last


def splat(f: Function, number: float) -> Value:
    """A number in the lanes of a granule."""
    return f.number(FLOATS, number)


def to_half(f: Function, values: Sequence[Value], target: Target) -> list[Value]:
    """Round vectors of 16 floats to bf16, as 16-bit integers, to the nearest even."""
    if target.bf16:
        half = lanes(GRANULE, "bfloat")
        return [
            f.call("llvm.x86.avx512bf16.cvtneps2bf16.512", half, value).as_bits(
                lanes(GRANULE, "i16")
            )
            for value in values
        ]
    rounded = []
    for value in values:
        bits = value.as_bits(INTEGERS)
        odd = (bits >> 16) & 1
        rounded.append(((bits + 0x7FFF + odd) >> 16).convert("trunc", lanes(GRANULE, "i16")))
    return rounded


def in_halves(f: Function, name: str, type_: str, *arguments: Value) -> Value:
    """An operation of 256-bit registers on vectors of 512 bits, half by half."""
    count = count_of(type_) // 2
    halves = []
    for first in (True, False):
        pieces = []
        for one in arguments:
            lanes_ = count_of(one.type) // 2
            pieces.append(f.shuffle(one, one, range(0 if first else lanes_, lanes_ * (2 - first))))
        halves.append(f.call(name, lanes(count, scalar_of(type_)), *pieces))
    return joined(f, halves)


def from_half(half: Value) -> Value:
    """16 floats of 16 values in bf16."""
    return (half.convert("zext", INTEGERS) << 16).as_bits(FLOATS)


def joined(f: Function, values: Sequence[Value]) -> Value:
    """Vectors end to end; their number is a power of two."""
    parts = list(values)
    while len(parts) > 1:
        parts = [
            f.shuffle(a, b, range(2 * _lanes(a)))
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _lanes(value: Value) -> int:
    return int(value.type[1:].split(" x ")[0])


def pair_order(width: int) -> list[int]:
    """Which token lies where in a row of bf16 that products read.

    In each 32 tokens, so that interleaving the low and high halves of the 128-bit lanes of two rows
    gives the tokens in their own order.
    """
    if width < 32:
        return list(range(width))
    block = [16 * j + 4 * i + m for i in range(4) for j in range(2) for m in range(4)]
    return [32 * start + token for start in range(width // 32) for token in block]


def quad_order(width: int) -> list[int]:
    """The same for a row of bytes, which is interleaved twice."""
    if width < 64:
        return list(range(width))
    return [16 * j + 4 * i + m for i in range(4) for j in range(4) for m in range(4)]


def store_half(
    f: Function, values: Sequence[Value], place: Value, target: Target, *, order: Sequence[int]
) -> None:
    """Write a row of floats as bf16, tokens in the order given."""
    row = joined(f, to_half(f, values, target))
    if list(order) != list(range(len(order))):
        for start in range(0, len(order), 32):
            piece = f.shuffle(row, row, order[start : start + 32])
            place.store(piece, 2 * start, 2)
        return
    place.store(row, 0, 2)
