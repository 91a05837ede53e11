"""Numbers in fewer bytes: fp32, bf16, fp16, or int8 with a scale for each row; in planes of bytes.

A number of several bytes is written in planes, the lowest byte of all first, because the high bytes
of weights are much alike. No number that is kept becomes zero: what is nearest to zero is rounded
to the smallest number that is not.
"""

from __future__ import annotations

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
    "bf16": np.uint16,  # numpy has none: its bits
}
"""How numpy holds the numbers of each kind that a tensor may be of."""

_LARGEST: Final = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}


def bits(values: Array) -> Array:
    """Numbers as unsigned integers of their size."""
    return values.view(f"u{values.itemsize}")


def to_float32(values: Array, dtype: str) -> Array:
    """Numbers of a dtype as float32; bf16 comes as its bits."""
    if dtype == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def from_float32(values: Array, dtype: str) -> Array:
    """float32 as numbers of a dtype, rounded to the nearest even; bf16 as its bits."""
    if dtype == "bf16":
        return _bf16(values)
    with np.errstate(over="ignore"):
        return values.astype(FLOATS[dtype], copy=False)


def narrowed(values: Array, dtype: str, kind: str) -> Array:
    """Numbers as a kind of fewer bytes, each to the nearest that is not zero if it is not.

    Args:
        values: Of ``dtype``.
        dtype: What they are.
        kind: What they become, a float.

    Raises:
        OverflowError: A finite number is too large for the kind.
    """
    if dtype == kind:
        return values
    wide = values if dtype == "fp64" else to_float32(values, dtype)
    if kind == "fp32" or dtype != "fp64":
        narrow = from_float32(wide, kind)
    else:
        narrow = from_float32(wide.astype(np.float32), kind)
    magnitude = bits(narrow) & (np.iinfo(bits(narrow).dtype).max >> 1)
    infinite = magnitude == bits(_infinity(kind))
    if infinite.any() and np.isfinite(wide[infinite]).any():
        raise OverflowError(f"{np.abs(wide[np.isfinite(wide)]).max():.4g} is too large for {kind}")
    lost = (magnitude == 0) & (wide != 0)
    if lost.any():
        bits(narrow)[lost] |= 1
    return narrow


def widened(values: Array, kind: str, dtype: str) -> Array:
    """Numbers of a kind as a dtype that has at least its bytes."""
    return values if kind == dtype else from_float32(to_float32(values, kind), dtype)


def quantised(values: Array, counts: Array) -> tuple[Array, Array]:
    """Numbers as int8, and the scale of each row as bf16.

    A number is its integer times the scale of its row. The largest of a row is 127 or a little
    less, because a scale is rounded up; none that is not zero becomes zero.

    Args:
        values: float32, (numbers,), row by row.
        counts: (rows,), of each row.

    Raises:
        OverflowError: One is not finite.
    """
    if not np.isfinite(values).all():
        raise OverflowError("it holds NaN or infinity, which int8 has not")
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    largest = np.zeros(len(counts), np.float32)
    if len(starts):
        largest[filled] = np.maximum.reduceat(np.abs(values), starts)
    scales = _bf16_above(largest / np.float32(127))
    each = np.repeat(to_float32(scales, "bf16"), counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps: Array = np.rint(np.nan_to_num(values / each)).astype(np.int8)
    lost = (steps == 0) & (values != 0)
    steps[lost] = np.sign(values[lost]).astype(np.int8)
    return steps, scales


def dequantised(steps: Array, scales: Array, counts: Array) -> Array:
    """The float32 numbers of :func:`quantised`."""
    each = np.repeat(to_float32(scales, "bf16"), counts)
    numbers: Array = steps.astype(np.float32) * each
    return numbers


def planes(values: Array) -> list[Array]:
    """The lowest byte of each number, then the next, ...: (numbers,) uint8 each."""
    apart = values.view(np.uint8).reshape(len(values), values.itemsize)
    return [np.ascontiguousarray(apart[:, place]) for place in range(values.itemsize)]


def joined(planes: list[Array], kind: str) -> Array:
    """The numbers of :func:`planes`."""
    if kind == "int8":
        return planes[0].view(np.int8)
    apart = np.empty((len(planes[0]), len(planes)), np.uint8)
    for place, plane in enumerate(planes):
        apart[:, place] = plane
    return apart.view(FLOATS[kind]).reshape(-1)


def _bf16(values: Array) -> Array:
    whole = values.view(np.uint32)
    rounded = ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype(np.uint16)
    unknown = np.isnan(values)
    if unknown.any():
        rounded[unknown] = (whole[unknown] >> 16).astype(np.uint16) | 0x40
    return rounded


def _bf16_above(values: Array) -> Array:
    """The nearest bf16 that is not below, of numbers from 0 on."""
    return ((values.view(np.uint32) + 0xFFFF) >> 16).astype(np.uint16)


def _infinity(kind: str) -> Array:
    return from_float32(np.array([np.inf], np.float32), kind)
