"""Numbers in fewer bytes: fp32, bf16, fp16, or int8 with a scale for each row; in planes of bytes.

A number of several bytes is written in planes, the lowest byte of all numbers first, because the
high bytes of weights are much alike. No number that is kept becomes zero: one that is nearest to
zero becomes the smallest that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Kind = Literal["fp64", "fp32", "fp16", "bf16", "int8"]
"""What numbers are written as."""

BYTES: Final[dict[str, int]] = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Of a number of each kind."""

FLOATS: Final[dict[str, type[np.generic]]] = {
    "fp64": np.float64,
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": np.uint16,
}
"""How numpy holds the numbers of each dtype that a tensor may have: bf16, which it lacks, as bits.
"""


_INFINITY: Final = {
    "fp64": 0x7FF0_0000_0000_0000,
    "fp32": 0x7F80_0000,
    "fp16": 0x7C00,
    "bf16": 0x7F80,
}
"""The bits of infinity; above them is what is no number."""


def bits(values: Array) -> Array:
    """Numbers as unsigned integers of their size."""
    return values.view(f"u{values.itemsize}")


def magnitudes(values: Array) -> Array:
    """The bits of numbers without their signs: 0 for zeros of either."""
    whole = bits(values)
    return whole & (np.iinfo(whole.dtype).max >> 1)


def nonzero(values: Array) -> Array:
    """Which numbers are not zero of either sign, bool."""
    # numpy compares float16 one by one, and bf16 is here as its bits.
    found: Array = (values if values.itemsize > 2 else magnitudes(values)) != 0
    return found


def to_float32(values: Array, dtype: str) -> Array:
    """Numbers of a dtype as float32."""
    if dtype == "bf16":
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)


def from_float32(values: Array, dtype: str) -> Array:
    """float32 as numbers of a dtype, each rounded to the nearest, of two to the even one."""
    if dtype == "bf16":
        return _bf16(values)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(FLOATS[dtype], copy=False)


def narrowed(values: Array, dtype: str, kind: str) -> Array:
    """Numbers as a float of fewer bytes, through float32; none that is not zero becomes zero.

    Raises:
        OverflowError: A finite number is too large for it.
    """
    if dtype == kind:
        return values
    narrow = from_float32(to_float32(values, dtype), kind)
    sizes = magnitudes(narrow)
    if len(sizes) and sizes.max() >= _INFINITY[kind]:
        large = (sizes == _INFINITY[kind]) & (magnitudes(values) < _INFINITY[dtype])
        if large.any():
            raise OverflowError(f"it holds a number that is too large for {kind}")
    if len(sizes) and not sizes.min():
        bits(narrow)[(sizes == 0) & (magnitudes(values) != 0)] |= 1
    return narrow


def widened(values: Array, kind: str, dtype: str) -> Array:
    """Numbers of a float as a dtype of at least its bytes."""
    return values if kind == dtype else from_float32(to_float32(values, kind), dtype)


def quantised(values: Array, dtype: str, counts: Array) -> tuple[Array, Array]:
    """Numbers as int8, and the scale of each row as the bits of bf16.

    A number is its integer times the scale of its row, which is the largest of the row by 127,
    rounded up. None that is not zero becomes zero.

    Args:
        values: (numbers,) of ``dtype``, row by row.
        dtype: What they are.
        counts: (rows,) int64, the numbers of each row.

    Raises:
        OverflowError: One is not finite, or nearly the largest of its dtype.
    """
    values = narrowed(values, dtype, "fp32") if dtype == "fp64" else to_float32(values, dtype)
    sizes = np.abs(values)
    starts = np.cumsum(counts) - counts
    filled = counts > 0
    largest = np.zeros(len(counts), np.float32)
    if len(values):
        largest[filled] = np.maximum.reduceat(sizes, starts[filled])
    most = 65504 if dtype == "fp16" else float(np.finfo(np.float32).max)
    if not (largest <= 0.99 * most).all():  # 127 scales may be 1/128 more
        raise OverflowError("int8 has no NaN and no infinity, and it holds one, or nearly")
    scales = _bf16_above(largest / np.float32(127))
    smallest = _bf16_above(np.array([2.0**-24 if dtype == "fp16" else 0], np.float32))
    scales[largest > 0] = np.maximum(scales[largest > 0], np.maximum(smallest, 1))
    each = to_float32(scales, "bf16")
    each[largest == 0] = 1
    steps = values / np.repeat(each, counts)
    np.rint(steps, out=steps)
    lost = (steps == 0) & (sizes != 0)
    if lost.any():
        steps[lost] = np.copysign(1, values[lost])
    return steps.astype(np.int8), scales


def planes(values: Array) -> list[Array]:
    """The lowest byte of each number, then the next, ...: (numbers,) uint8 each."""
    whole = bits(values)
    return [(whole >> (8 * place)).astype(np.uint8) for place in range(values.itemsize)]


def joined(planes: Sequence[Array], kind: str) -> Array:
    """The numbers of :func:`planes`."""
    if kind == "int8":
        return planes[0].view(np.int8)
    whole = planes[-1].astype(f"u{len(planes)}")
    for plane in planes[-2::-1]:
        whole <<= 8
        whole |= plane
    return whole.view(FLOATS[kind])


def _bf16(values: Array) -> Array:
    whole = values.view(np.uint32)
    rounded = whole >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += whole
    rounded >>= 16
    narrow = rounded.astype(np.uint16)
    unknown = np.isnan(values)
    if unknown.any():
        narrow[unknown] = (whole[unknown] >> 16).astype(np.uint16) | 0x40
    return narrow


def _bf16_above(values: Array) -> Array:
    """The nearest bf16 that is not below, of finite numbers from 0 on."""
    return ((values.view(np.uint32) + 0xFFFF) >> 16).astype(np.uint16)
