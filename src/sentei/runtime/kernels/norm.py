"""LayerNorm over the features of each token, and what products read of its result.

Tokens are lanes, so that no sum crosses lanes. Three passes: mean; variance around it; normalise,
scale and shift. The last one also finds each token's largest magnitude where bytes are to be made,
which takes one pass more.

Cost over 64 tokens and a feature: 12 to 16 loads of 64 bytes, 20 operations. It runs at 17 % of the
loads' roof (`python -m benchmarks.runtime_kernels`), which sums that wait for themselves and the
second cache keep it from; it is 1 to 7 % of a layer.
"""

from __future__ import annotations

from enum import IntEnum, auto
from functools import cache

from sentei.runtime.cpu import Target
from sentei.runtime.ir import POINTER, Function, Value
from sentei.runtime.kernels.convert import (
    TINY,
    Emit,
    keep_scales,
    larger,
    load_row,
    write_bytes,
    write_half,
)
from sentei.runtime.kernels.kernel import FLOATS, GRANULE, Kernel, splat


class Word(IntEnum):
    """Words of the arguments."""

    FEATURES = 0
    IN = auto()
    OUT = auto()  # floats
    INPUT = auto()  # bytes or bf16
    SCALE = auto()
    WEIGHT = auto()  # floats: (features, 2), scale and shift
    EPSILON = auto()  # a float's bits; then 1 / features
    INVERSE = auto()


@cache
def build(emit: Emit, width: int, target: Target) -> Function:
    """The kernel of a norm."""
    kernel = Kernel(f"norm_{emit}_{width}", target)
    f = kernel.f
    features = kernel.argument(Word.FEATURES)
    source, out = (
        kernel.buffer(kernel.argument(word), kernel.item) for word in (Word.IN, Word.OUT)
    )
    weights = kernel.argument(Word.WEIGHT, POINTER)
    mean, inverse = _moments(kernel, source, features, width)
    size = 4 * width
    with f.loop(0, features, 1, [splat(f, TINY)] * (width // GRANULE)) as loop:
        pair = weights.at(loop.index * 8)
        scale, shift = (pair.load("float", place, 4).spread(GRANULE) for place in (0, 4))
        values = [
            f.fma((x - m) * i, scale, shift)
            for x, m, i in zip(
                load_row(source, loop.index, width, "float"), mean, inverse, strict=True
            )
        ]
        row = out.at(loop.index * size)
        for number, value in enumerate(values):
            row.store(value, 4 * GRANULE * number, 4)
        loop.next = larger(f, loop.values, values) if emit == "int8" else loop.values

    def read(feature: Value) -> list[Value]:
        return load_row(out, feature, width, "float")

    if emit != "none":
        converted = kernel.buffer(kernel.argument(Word.INPUT), kernel.item)
        if emit == "half":
            write_half(f, read, converted, 0, features, width, target)
        else:
            scales = kernel.buffer(kernel.argument(Word.SCALE), kernel.item)
            factors = keep_scales(f, loop.values, scales)
            write_bytes(f, read, factors, converted, 0, features, target)
    return kernel.f


def _moments(
    kernel: Kernel, source: Value, features: Value, width: int
) -> tuple[list[Value], list[Value]]:
    """Mean and inverse deviation of each token."""
    f = kernel.f
    zeros = [splat(f, 0.0)] * (width // GRANULE)
    share = kernel.argument(Word.INVERSE, "float").spread(GRANULE)
    epsilon = kernel.argument(Word.EPSILON, "float").spread(GRANULE)
    with f.loop(0, features, 1, zeros) as loop:
        values = load_row(source, loop.index, width, "float")
        loop.next = [s + x for s, x in zip(loop.values, values, strict=True)]
    mean = [total * share for total in loop.values]
    with f.loop(0, features, 1, zeros) as loop:
        values = load_row(source, loop.index, width, "float")
        around = [x - m for x, m in zip(values, mean, strict=True)]
        loop.next = [f.fma(d, d, s) for d, s in zip(around, loop.values, strict=True)]
    deviations = [
        f.call("llvm.sqrt.v16f32", FLOATS, f.fma(total, share, epsilon)) for total in loop.values
    ]
    return mean, [splat(f, 1.0) / deviation for deviation in deviations]
