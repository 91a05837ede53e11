"""Which entries of a tensor are kept, as bytes: a bit for each entry, or the gaps between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Coding = Literal["dense", "bitmask", "gaps"]
"""How a mask is written; of a dense tensor none is."""

ESCAPE: Final = 255
"""A byte of gaps that stands for as many pruned entries, and for no kept one."""

PIECE: Final = 1 << 18
"""Entries or bytes that are worked on at a time, so that what comes of them stays in the cache."""


def bitmask(kept: Array) -> Array:
    """A mask, (entries,) bool, as a bit for each entry, the first in the lowest bit of a byte."""
    return np.packbits(kept, bitorder="little")


def gaps(positions: Array, last: int = -1) -> Array:
    """The pruned entries before each kept one, a byte each.

    Args:
        positions: (kept,) int64, rising.
        last: Position of the kept entry before the first of these.
    """
    if not len(positions):
        return np.empty(0, np.uint8)
    before = np.empty_like(positions)
    before[0] = positions[0] - last
    np.subtract(positions[1:], positions[:-1], out=before[1:])
    before -= 1
    if before.max() < ESCAPE:
        return before.astype(np.uint8)
    wide = np.flatnonzero(before >= ESCAPE)
    escapes, before[wide] = np.divmod(before[wide], ESCAPE)
    places = np.ones_like(before)
    places[wide] += escapes
    np.cumsum(places, out=places)
    found = np.full(places[-1], ESCAPE, np.uint8)
    found[places - 1] = before
    return found


def read_bitmask(mask: Array) -> Iterator[Array]:
    """The positions of kept entries, (some,) int64, piece by piece.

    Args:
        mask: (bytes,) uint8, of :func:`bitmask`.
    """
    step = PIECE // 8
    for start in range(0, len(mask), step):
        kept = np.unpackbits(mask[start : start + step], bitorder="little")
        positions = np.flatnonzero(kept.view(np.bool_))  # eight times as fast as of uint8
        positions += 8 * start
        yield positions


def read_gaps(mask: Array) -> Iterator[Array]:
    """The positions of kept entries, (some,) int64, piece by piece.

    Args:
        mask: (bytes,) uint8, of :func:`gaps`.
    """
    last = -1
    for start in range(0, len(mask), PIECE):
        piece = mask[start : start + PIECE]
        steps = piece.astype(np.int64)
        steps += 1
        escaped = piece.max() == ESCAPE
        if escaped:
            kept = piece != ESCAPE
            steps[~kept] = ESCAPE
        steps[0] += last
        ends = np.cumsum(steps, out=steps)
        last = int(ends[-1])
        yield ends[kept] if escaped else ends
