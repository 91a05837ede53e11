"""Which entries of a tensor are kept, as bytes: a bit for each entry, or the gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Coding = Literal["dense", "bitmask", "gaps"]
"""How a mask is written; of a dense one nothing is."""

ESCAPE: Final = 255
"""A byte of gaps that stands for as many pruned entries, and for no kept one."""

PIECE: Final = 1 << 16
"""Entries or bytes that are decoded at a time, so that what comes of them stays in the cache."""


def bitmask(kept: Array) -> Array:
    """A mask, (entries,) bool, as a bit for each entry, the first in the lowest bit of a byte."""
    return np.packbits(kept, bitorder="little")


def gaps(positions: Array) -> Array:
    """The pruned entries before each kept one, a byte each.

    Args:
        positions: (kept,) int64, rising.
    """
    before = np.diff(positions, prepend=-1) - 1
    escapes, rest = np.divmod(before, ESCAPE)
    if not escapes.any():
        return rest.astype(np.uint8)
    ends = np.cumsum(escapes + 1)
    found = np.full(ends[-1], ESCAPE, np.uint8)
    found[ends - 1] = rest
    return found


def read_bitmask(mask: Array) -> Iterator[Array]:
    """The positions of kept entries, int64, piece by piece.

    Args:
        mask: (bytes,) uint8, of :func:`bitmask`.
    """
    step = PIECE // 8
    for start in range(0, len(mask), step):
        kept = np.unpackbits(mask[start : start + step], bitorder="little")
        yield np.flatnonzero(kept) + 8 * start


def read_gaps(mask: Array) -> Iterator[Array]:
    """The positions of kept entries, int64, piece by piece.

    Args:
        mask: (bytes,) uint8, of :func:`gaps`.
    """
    last = -1
    for start in range(0, len(mask), PIECE):
        piece = mask[start : start + PIECE]
        kept = piece != ESCAPE
        ends = np.cumsum(piece + kept.astype(np.int64), dtype=np.int64)
        ends += last
        last = int(ends[-1])
        yield ends if kept.all() else ends[kept]
