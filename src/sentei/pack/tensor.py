"""A tensor in few bytes: where its numbers are, and what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sentei.pack import codings, values, zstd

Array = npt.NDArray[Any]
Where = Array | slice


@dataclass(frozen=True, eq=False)
class Part:
    """Some bytes of a packed tensor: as they are, or a frame of zstd where that is smaller."""

    size: int
    stored: Array

    def bytes(self, name: str) -> Array:
        """(size,) uint8.

        Args:
            name: Of the tensor, for the error.

        Raises:
            ValueError: The frame is damaged, or of another size.
            ModuleNotFoundError: It is a frame, and the extra ``pack`` is not installed.
        """
        return zstd.decompressed(self.stored, self.size, name)


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

    @cached_property
    def rows(self) -> int:
        """What int8 has a scale for each of: entries of the first dimension."""
        return self.shape[0] if self.shape else 1

    @cached_property
    def columns(self) -> int:
        """Entries of a row."""
        return math.prod(self.shape[1:])

    def decode(self, out: Array | None = None) -> Array:
        """The whole tensor, of ``dtype``; bf16 as its bits in uint16.

        Args:
            out: Of its shape and dtype and contiguous, to write to; None takes new memory.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        if out is None:
            out = np.zeros(self.shape, values.FLOATS[self.dtype])
        elif self.coding != "dense":
            out.fill(0)
        flat = out.reshape(-1)
        for where, numbers in self.pieces():
            flat[where] = numbers
        return out

    def nonzero(self) -> tuple[Array, Array]:
        """The positions of its numbers in the flattened tensor, int64, rising; and the numbers.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        positions = np.empty(self.nonzeros, np.int64)
        numbers = np.empty(self.nonzeros, values.FLOATS[self.dtype])
        done = 0
        for where, piece in self.pieces():
            at = np.arange(where.start, where.stop) if isinstance(where, slice) else where
            positions[done : done + len(piece)] = at
            numbers[done : done + len(piece)] = piece
            done += len(piece)
        return positions, numbers

    def pieces(self) -> Iterator[tuple[Where, Array]]:
        """Where numbers are in the flattened tensor, rising, and what they are, piece by piece.

        Yields:
            Positions, int64, or the slice that a piece of a dense tensor is; and as many numbers
            of ``dtype``, bf16 as its bits.

        Raises:
            ValueError: A part is damaged, or parts do not fit together.
        """
        parts = [part.bytes(self.name) for part in self.parts]
        places = self._rows() if self.coding == "dense" else self._positions(parts.pop(0))
        scales = parts.pop(0).view(np.uint16) if self.values == "int8" else None
        done = 0
        for where, count in places:
            piece = [plane[done : done + count] for plane in parts]
            if len(piece[0]) != count:
                raise ValueError(f"{self.name}: its mask keeps more than {self.nonzeros:,} entries")
            numbers = values.joined(piece, self.values)
            if scales is None:
                yield where, values.widened(numbers, self.values, self.dtype)
            else:
                yield where, self._scaled(numbers, scales, where)
            done += count
        if done != self.nonzeros:
            raise ValueError(f"{self.name}: its mask keeps {done:,} entries of {self.nonzeros:,}")

    def _rows(self) -> Iterator[tuple[slice, int]]:
        """Pieces of whole rows."""
        step = max(1, codings.PIECE // max(1, self.columns)) * self.columns
        for start in range(0, self.size, step or 1):
            stop = min(start + step, self.size)
            yield slice(start, stop), stop - start

    def _positions(self, mask: Array) -> Iterator[tuple[Array, int]]:
        read = codings.read_bitmask if self.coding == "bitmask" else codings.read_gaps
        for positions in read(mask):
            if len(positions) and positions[-1] >= self.size:
                raise ValueError(f"{self.name}: its mask keeps entries beyond its end")
            yield positions, len(positions)

    def _scaled(self, steps: Array, scales: Array, where: Where) -> Array:
        """The numbers of int8."""
        numbers = steps.astype(np.float32)
        if isinstance(where, slice):
            rows = slice(where.start // self.columns, where.stop // self.columns)
            each = values.to_float32(scales[rows], "bf16")
            numbers.reshape(-1, self.columns)[...] *= each[:, None]
        else:
            numbers *= values.to_float32(scales[where // self.columns], "bf16")
        return values.from_float32(numbers, self.dtype)
