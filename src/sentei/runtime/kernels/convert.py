"""From floats to what products read: quantised bytes with a scale for each token, or bf16.

Two passes over a panel: the largest magnitude of every token, then x / scale + 128 as an unsigned
byte; scale = largest / 127. A token that is all zeros gets the scale of the smallest number, and
zeros. On AVX-512, packing 4 vectors of 16 to 64 bytes by the saturating packs leaves the tokens in
just the order that interleaving undoes (``quad_order``).

Cost over 64 tokens and a feature: 8 loads, 4 maxima, 4 multiply-adds, 4 conversions, 3 packs; to
int8 at 17 to 28 % of the roof (`python -m benchmarks.runtime_kernels`), 1 to 4 % of a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto
from functools import cache
from typing import Literal

from sentei.runtime.cpu import Target
from sentei.runtime.ir import Function, Value, lanes
from sentei.runtime.kernels.kernel import (
    FLOATS,
    GRANULE,
    INTEGERS,
    Kernel,
    from_half,
    in_halves,
    joined,
    pair_order,
    splat,
    store_half,
)

Emit = Literal["none", "half", "int8"]
Source = Literal["float", "half"]

TINY = 1e-30
"""In place of the largest magnitude of a token that is all zeros."""

Read = Callable[[Value], list[Value]]
"""The granules of a feature."""


class Word(IntEnum):
    """Words of the arguments."""

    FEATURES = 0
    IN = auto()
    OUT = auto()
    SCALE = auto()


@cache
def build(source: Source, emit: Emit, width: int, target: Target) -> Function:
    """The kernel that converts a panel."""
    kernel = Kernel(f"convert_{source}_{emit}_{width}", target)
    f = kernel.f
    features = kernel.argument(Word.FEATURES)
    first, last = kernel.share(features)
    place = kernel.buffer(kernel.argument(Word.IN), kernel.item)
    out = kernel.buffer(kernel.argument(Word.OUT), kernel.item)

    def read(feature: Value) -> list[Value]:
        return load_row(place, feature, width, source)

    if emit == "half":
        write_half(f, read, out, first, last, width, target)
        return kernel.f
    scales = kernel.buffer(kernel.argument(Word.SCALE), kernel.item)
    # Every part needs the largest of all features; the first keeps the scale.
    largest = [splat(f, TINY)] * (width // GRANULE)
    with f.loop(0, features, 1, largest) as loop:
        loop.next = larger(f, loop.values, read(loop.index))
    inverse = keep_scales(f, loop.values, scales)
    write_bytes(f, read, inverse, out, first, last, target)
    return kernel.f


def load_row(place: Value, feature: Value, width: int, source: str) -> list[Value]:
    """A feature of all tokens of a panel as floats."""
    size = 4 if source == "float" else 2
    row = place.at(feature * (size * width))
    starts = range(0, width, GRANULE)
    if source == "float":
        return [row.load(FLOATS, 4 * start, 4) for start in starts]
    half = lanes(GRANULE, "i16")
    return [from_half(row.load(half, 2 * start, 2)) for start in starts]


def larger(f: Function, largest: list[Value], values: list[Value]) -> list[Value]:
    """The largest magnitudes so far; of a token that ends in a NaN, NaN, as all of it then is."""
    return [f.maximum(m, f.absolute(v)) for m, v in zip(largest, values, strict=True)]


def keep_scales(f: Function, largest: list[Value], scales: Value) -> list[Value]:
    """Write the scales; gives their inverses."""
    for number, value in enumerate(largest):
        scales.store(value * (1 / 127), 4 * GRANULE * number, 4)
    return [splat(f, 127.0) / value for value in largest]


def write_half(
    f: Function,
    read: Read,
    out: Value,
    first: Value | int,
    last: Value,
    width: int,
    target: Target,
) -> None:
    """A loop that writes features as bf16."""
    with f.loop(first, last) as loop:
        place = out.at(loop.index * (2 * width))
        store_half(f, read(loop.index), place, target, order=pair_order(width))


def write_bytes(
    f: Function,
    read: Read,
    inverse: list[Value],
    out: Value,
    first: Value | int,
    last: Value,
    target: Target,
) -> None:
    """A loop that writes features as bytes."""
    width = GRANULE * len(inverse)
    with f.loop(first, last) as loop:
        shifted = [
            _rounded(f, f.fma(value, scale, splat(f, 128.0)))
            for value, scale in zip(read(loop.index), inverse, strict=True)
        ]
        place = out.at(loop.index * width)
        if width == 64:
            row = _packed(f, shifted, target)
        else:
            row = joined(f, [one.convert("trunc", lanes(GRANULE, "i8")) for one in shifted])
        place.store(row, 0, 1)


def _packed(f: Function, values: list[Value], target: Target) -> Value:
    """64 bytes of four vectors, in ``quad_order``."""
    if target.isa == "avx512":
        words = [
            f.call("llvm.x86.avx512.packusdw.512", "<32 x i16>", *values[i : i + 2]) for i in (0, 2)
        ]
        return f.call("llvm.x86.avx512.packuswb.512", "<64 x i8>", *words)
    words = [
        in_halves(f, "llvm.x86.avx2.packusdw", "<32 x i16>", *values[i : i + 2]) for i in (0, 2)
    ]
    return in_halves(f, "llvm.x86.avx2.packuswb", "<64 x i8>", *words)


def _rounded(f: Function, value: Value) -> Value:
    """To the nearest integer, of values from 0 to 256."""
    magic = 12582912.0  # 1.5 * 2**23: the integer is left in the low bits
    return ((value + magic).as_bits(INTEGERS)) & 0xFF
