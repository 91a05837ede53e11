"""A tensor in few bytes: where its numbers are, and what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sentei.pack import codings, values, zstd

Array = npt.NDArray[Any]

GAPS_BELOW: Final = {True: 0.35, False: 0.125}
"""Density below which gaps are smaller than a bitmask, compressed and not."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some bytes of a packed tensor: as they are, or a frame of zstd where that is smaller."""

    size: int
    stored: Array

    def bytes(self) -> Array:
        """(size,) uint8.

        Raises:
            ValueError: The frame is damaged, or of another size.
            ModuleNotFoundError: It is a frame, and the extra ``pack`` is not installed.
        """
        return zstd.decompressed(self.stored, self.size)


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """A tensor: the mask of what is kept, and the numbers that are.

    ``dtype`` is what it is when it is decoded, ``values`` what its numbers are written as. The
    parts are the mask, unless ``coding`` is dense; a scale for each row where values are int8; and
    the planes of the numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    coding: codings.Coding
    values: values.Kind
    nonzeros: int
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Entries, kept and pruned."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its parts as they are stored."""
        return sum(part.stored.nbytes for part in self.parts)

    @property
    def rows(self) -> int:
        """What int8 has a scale for each of: the first dimension."""
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        """Entries of a row."""
        return math.prod(self.shape[1:])

    def pieces(self) -> Iterator[tuple[Array | slice, Array]]:
        """Where numbers are in the flattened tensor, rising, and what they are, piece by piece.

        Yields:
            Positions, int64, or the slice that a piece of a dense tensor is; and as many numbers
            of ``dtype``, bf16 as its bits.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        *heads, scales, planes = self._opened()
        done = 0
        for where, count in self._places(*heads):
            piece = [plane[done : done + count] for plane in planes]
            if any(len(plane) != count for plane in piece):
                raise ValueError(f"its mask keeps more than {self.nonzeros:,} entries")
            numbers = values.joined(piece, self.values)
            if self.values == "int8":
                at = np.arange(where.start, where.stop) if isinstance(where, slice) else where
                steps = values.to_float32(scales, "bf16")[at // self.columns]
                yield where, values.from_float32(numbers * steps, self.dtype)
            else:
                yield where, values.widened(numbers, self.values, self.dtype)
            done += count
        if done != self.nonzeros:
            raise ValueError(f"its mask keeps {done:,} entries of {self.nonzeros:,}")

    def decode(self, out: Array | None = None) -> Array:
        """The whole tensor, of ``dtype``; bf16 as its bits in uint16.

        Args:
            out: Of its shape and dtype and contiguous, to write to; None takes new memory.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        if out is None:
            out = np.zeros(self.shape, values.FLOATS[self.dtype])
        else:
            out[...] = 0
        flat = out.reshape(-1)
        for where, numbers in self.pieces():
            flat[where] = numbers
        return out

    def nonzero(self) -> tuple[Array, Array]:
        """The positions of its numbers in the flattened tensor, int64, rising; and the numbers.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        found, numbers = np.empty(self.nonzeros, np.int64), []
        done = 0
        for where, piece in self.pieces():
            at = np.arange(where.start, where.stop) if isinstance(where, slice) else where
            found[done : done + len(at)] = at
            numbers.append(piece)
            done += len(at)
        empty = np.empty(0, values.FLOATS[self.dtype])
        return found, np.concatenate([empty, *numbers])

    def _opened(self) -> tuple[Array | None, Array, list[Array]]:
        """The bytes of the mask, the scales, and the planes."""
        parts = [part.bytes() for part in self.parts]
        mask = None if self.coding == "dense" else parts.pop(0)
        scales = parts.pop(0).view(np.uint16) if self.values == "int8" else np.empty(0, np.uint16)
        return mask, scales, parts

    def _places(self, mask: Array | None) -> Iterator[tuple[Array | slice, int]]:
        if mask is None:
            for start in range(0, self.size, codings.PIECE):
                stop = min(start + codings.PIECE, self.size)
                yield slice(start, stop), stop - start
            return
        read = codings.read_bitmask if self.coding == "bitmask" else codings.read_gaps
        for positions in read(mask):
            if len(positions) and positions[-1] >= self.size:
                raise ValueError("its mask keeps entries beyond its end")
            yield positions, len(positions)


def encode(
    name: str,
    array: Array,
    *,
    dtype: str | None = None,
    kind: values.Kind = "bf16",
    sparse: bool = True,
    coding: codings.Coding | None = None,
    compress: bool = True,
) -> PackedTensor:
    """Pack a tensor.

    Where its numbers are written as what they are, all comes back bit for bit, a negative zero and
    what is no number too. Where they are rounded, each kept number stays another than zero, and a
    negative zero counts as pruned.

    Args:
        name: Of the tensor.
        array: float64, float32 or float16, or the bits of bf16 as uint16.
        dtype: What it is, where that is ``bf16``; None takes the array's.
        kind: What its numbers are written as, at most: those that are of no more bytes stay what
            they are.
        sparse: Whether pruned entries are left out.
        coding: How the mask is written; None takes what is smaller at such a density.
        compress: Whether parts are compressed with zstd where that makes them smaller.

    Raises:
        ValueError: A number is too large for the kind, or not finite in int8.
        ModuleNotFoundError: It is to be compressed, and the extra ``pack`` is not installed.
    """
    dtype = dtype or {8: "fp64", 4: "fp32", 2: "fp16"}[array.itemsize]
    written: Any = kind if values.BYTES[kind] < values.BYTES[dtype] else dtype
    flat = np.ascontiguousarray(array).reshape(-1)
    positions, parts = None, list[Array]()
    if sparse:
        kept = _kept(flat, exact=written == dtype)
        positions = np.flatnonzero(kept)
        flat = flat[positions]
        below = len(positions) < GAPS_BELOW[compress] * len(kept)
        coding = coding or ("gaps" if below else "bitmask")
        parts.append(codings.bitmask(kept) if coding == "bitmask" else codings.gaps(positions))
    try:
        if written == "int8":
            counts = _counts(array.shape, positions)
            flat, scales = values.quantised(values.to_float32(flat, dtype), counts)
            parts.append(scales.view(np.uint8))
        else:
            flat = values.narrowed(flat, dtype, written)
    except OverflowError as error:
        raise ValueError(f"{name}: {error}; write values of another kind") from error
    parts += values.planes(flat)
    return PackedTensor(
        name=name,
        shape=array.shape,
        dtype=dtype,
        coding=coding if sparse and coding else "dense",
        values=written,
        nonzeros=len(flat),
        parts=tuple(Part(len(one), zstd.compressed(one) if compress else one) for one in parts),
    )


def _kept(flat: Array, *, exact: bool) -> Array:
    """Which entries are not zero, (entries,) bool; a negative zero is one where all is exact."""
    whole = values.bits(flat)
    kept: Array = whole != 0 if exact else (whole & (np.iinfo(whole.dtype).max >> 1)) != 0
    return kept


def _counts(shape: tuple[int, ...], positions: Array | None) -> Array:
    """How many of each row are kept; all, where no positions are given."""
    rows, columns = shape[0] if shape else 1, math.prod(shape[1:])
    if positions is None:
        return np.full(rows, columns)
    ends = np.searchsorted(positions, np.arange(1, rows + 1) * columns)
    return np.diff(ends, prepend=0)
