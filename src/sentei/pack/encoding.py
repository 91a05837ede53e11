"""Tensors packed, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from sentei.pack import codings, values, zstd
from sentei.pack.tensor import PackedTensor, Part

Array = npt.NDArray[Any]

DENSE_FROM: Final = 0.9
"""Density above which a tensor is written without a mask."""

GAPS_BELOW: Final = {True: 0.2, False: 0.125}
"""Density below which gaps are smaller than a bitmask, with zstd and without."""


def choose_coding(array: Array, *, compress: bool = True) -> codings.Coding:
    """What a tensor's mask is best written as: nothing, a bit for each entry, or gaps."""
    kept = sum(int(np.count_nonzero(values.nonzero(piece))) for _, piece in _pieces(array))
    if kept > DENSE_FROM * array.size:
        return "dense"
    return "gaps" if kept < GAPS_BELOW[compress] * array.size else "bitmask"


def encode(
    name: str,
    array: Array,
    *,
    dtype: str | None = None,
    kind: values.Kind = "bf16",
    coding: codings.Coding | None = None,
    compress: bool = True,
) -> PackedTensor:
    """Pack a tensor.

    Where its numbers are written as what they are, all comes back bit for bit, negative zeros and
    what is no number too. Where they are rounded, each kept number stays another than zero, and a
    negative zero becomes a zero.

    Args:
        name: Of the tensor.
        array: float64, float32 or float16, or the bits of bf16 as uint16.
        dtype: What it is, where that is ``bf16``; None takes the array's.
        kind: What its numbers are written as, at most: those that have no more bytes stay what
            they are.
        coding: How the mask is written; None takes :func:`choose_coding`.
        compress: Whether to compress with zstd what that makes smaller.

    Raises:
        ValueError: A number is too large for the kind, or not finite in int8.
        ModuleNotFoundError: It is to be compressed, and the extra ``pack`` is not installed.
    """
    dtype = dtype or {8: "fp64", 4: "fp32", 2: "fp16"}[array.itemsize]
    kind = kind if values.BYTES[kind] < values.BYTES[dtype] else cast(values.Kind, dtype)
    array = np.ascontiguousarray(array).reshape(array.shape)
    coding = coding or choose_coding(array, compress=compress)
    try:
        nonzeros, parts = _parts(array, dtype, kind, coding)
    except OverflowError as error:
        raise ValueError(f"{name}: {error}; write its values as another kind") from error
    return PackedTensor(
        name=name,
        shape=array.shape,
        dtype=dtype,
        coding=coding,
        values=kind,
        nonzeros=nonzeros,
        parts=tuple(Part(len(one), zstd.compressed(one) if compress else one) for one in parts),
    )


def _parts(array: Array, dtype: str, kind: str, coding: str) -> tuple[int, list[Array]]:
    """How many numbers there are, and the bytes of the mask, the scales and the planes."""
    masks, scales, planes = list[Array](), list[Array](), list[list[Array]]()
    last, nonzeros = -1, 0
    for start, piece in _pieces(array):
        numbers, counts = piece.reshape(-1), np.full(len(piece), piece.shape[1])
        if coding != "dense":
            kept = _kept(piece, exact=kind == dtype)
            positions = np.flatnonzero(kept)
            numbers = numbers.take(positions)
            if coding == "bitmask":
                masks.append(codings.bitmask(kept.reshape(-1)))
            elif len(positions):
                positions += start
                masks.append(codings.gaps(positions, last))
                last = int(positions[-1])
            if kind == "int8":
                counts = np.count_nonzero(kept, axis=1)
        if kind == "int8":
            numbers, each = values.quantised(numbers, dtype, counts)
            scales.append(each.view(np.uint8))
        else:
            numbers = values.narrowed(numbers, dtype, kind)
        planes.append(values.planes(numbers))
        nonzeros += len(numbers)
    apart = ([piece[place] for piece in planes] for place in range(values.BYTES[kind]))
    pieces = [
        *([masks] if coding != "dense" else []),
        *([scales] if kind == "int8" else []),
        *apart,
    ]
    return nonzeros, [np.concatenate([_NOTHING, *one]) for one in pieces]


_NOTHING = np.empty(0, np.uint8)


def _pieces(array: Array) -> Iterator[tuple[int, Array]]:
    """Rows of a size that stays in the cache, and where they begin.

    They are as many as make whole bytes of bits, but for the last.
    """
    rows, columns = (array.shape[0] if array.ndim else 1), math.prod(array.shape[1:])
    table = array.reshape(rows, columns)
    step = max(1, codings.PIECE // max(1, columns) // 8) * 8
    for start in range(0, len(table), step):
        yield start * columns, table[start : start + step]


def _kept(piece: Array, *, exact: bool) -> Array:
    """Which entries are not zero, bool; a negative zero is one where all is exact."""
    kept: Array = values.bits(piece) != 0 if exact else values.nonzero(piece)
    return kept
