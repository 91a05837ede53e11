"""Weights as the product kernels read them: runs of groups, and the facts of each output.

A run belongs to one output (``rows``) or to four neighbouring ones (``blocks``). Its groups hold
the weights of one, two or four inputs (fp32, bf16, int8; 4 bytes for each output), then the numbers
of these inputs times 8 in two bytes each. A short last group is filled up with zeros at the last
input. Runs are ordered by length, so that the loop over a run ends when the CPU expects it to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from sentei.runtime.cpu import Precision
from sentei.runtime.encoder import Array
from sentei.runtime.kernels.product import GROUP, TILE, group_bytes

MOST_INPUTS: Final = 8191
"""Inputs of a product: their numbers times 8 are 16 bits wide."""

FACTS: Final = np.dtype(
    [("row", np.int32), ("bias", np.float32), ("scale", np.float32), ("start", np.int32)]
)

NOTHING: Final = 1e-36
"""Rows of int8 that hold no larger weight are zeros: a 127th of it would lose its bits."""


@dataclass(frozen=True, eq=False)
class Runs:
    """A matrix, packed.

    ``groups`` is bytes (groups, bytes of one), ``starts`` (runs + 1,), ``facts`` (outputs,) in the
    order of the runs.
    """

    precision: Precision
    outputs: int
    shared: bool
    pieces: int
    groups: Array
    starts: Array
    facts: Array

    @property
    def runs(self) -> int:
        """Number of runs, or of tiles where inputs are taken in pieces."""
        count = len(self.starts) - 1
        return count if self.pieces == 1 else count * self.outputs // (self.pieces * TILE)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return int(self.groups.nbytes + self.starts.nbytes + self.facts.nbytes)


def bf16(values: Array) -> Array:
    """fp32 rounded to bf16, to the nearest even, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def quantised(weight: Array) -> tuple[Array, Array]:
    """Each row as int8 and what one step of it is worth."""
    largest = np.abs(weight).max(axis=1, initial=0)
    scale = np.where(largest > NOTHING, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def pack(
    weight: Array,
    bias: Array,
    precision: Precision,
    outputs: int,
    *,
    shared: bool,
    piece: int | None = None,
) -> Runs:
    """Pack a matrix.

    Args:
        weight: fp32 (out, in).
        bias: fp32 (out,).
        precision: Of the weights.
        outputs: Of a run.
        shared: Whether they are neighbours that share their inputs.
        piece: Take so many inputs at a time, tile by tile of 64 outputs; None for all at once.
    """
    multiple = outputs if piece is None else TILE
    weight, bias = _filled(weight, multiple), _filled(bias, multiple)
    assert weight.shape[1] <= MOST_INPUTS
    numbers, scale, start = _numbers(weight, precision)
    rows, first = np.arange(len(weight)), np.zeros(len(weight), np.int64)
    segment = first
    pieces = 1
    if piece is not None and piece < weight.shape[1]:
        pieces = -(-weight.shape[1] // piece)
        weight, numbers = (_in_pieces(one, piece) for one in (weight, numbers))
        tile, number, row = np.unravel_index(
            np.arange(len(weight)), (len(rows) // TILE, pieces, TILE)
        )
        rows, first, segment = tile * TILE + row, number * piece, tile * pieces + number
    kept = weight != 0
    if shared:
        union = kept.reshape(-1, outputs, kept.shape[1]).any(axis=1)
        kept = np.repeat(union, outputs, axis=0)
    size = GROUP[precision]
    lengths = -(-kept.sum(axis=1) // size)
    order = np.lexsort((-lengths, segment))  # stable: neighbours of a block stay together
    longest = lengths[order].reshape(-1, outputs).max(axis=1, initial=0)
    starts = np.zeros(len(longest) + 1, np.int64)
    np.cumsum(longest, out=starts[1:])
    rows = rows[order]
    facts = np.zeros(len(rows), FACTS)
    facts["row"], facts["bias"] = rows, bias[rows]
    facts["scale"], facts["start"] = scale[rows], start[rows]
    index, weights = _slots(kept[order], numbers[order], first[order], starts, outputs, size)
    if shared:
        groups = np.concatenate([_flat(weights), _flat(index[:, :1])], axis=1)
    else:
        groups = _flat(np.concatenate([weights, index], axis=2))
    assert groups.shape[1] == group_bytes(precision, outputs, shared=shared)
    return Runs(precision, outputs, shared, pieces, groups, starts, facts)


def _in_pieces(matrix: Array, piece: int) -> Array:
    """Tile by tile, piece by piece: (tiles * pieces * 64, piece)."""
    missing = -matrix.shape[1] % piece
    matrix = np.pad(matrix, ((0, 0), (0, missing)))
    tiles = matrix.reshape(-1, TILE, matrix.shape[1] // piece, piece)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3)).reshape(-1, piece)


def _filled(values: Array, multiple: int) -> Array:
    """With zeros at the end, up to a multiple."""
    missing = -len(values) % multiple
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)) if missing else values


def _flat(groups: Array) -> Array:
    """Each group's bytes in a row; there may be no group at all."""
    return groups.reshape(len(groups), math.prod(groups.shape[1:]))


def _numbers(weight: Array, precision: Precision) -> tuple[Array, Array, Array]:
    """The weights as they are stored, what a step of each row is worth, what sums begin with."""
    scale = np.ones(len(weight), np.float32)
    start = np.zeros(len(weight), np.int32)
    if precision == "fp32":
        return weight, scale, start
    if precision == "bf16":
        return bf16(weight), scale, start
    numbers, scale = quantised(weight)
    return numbers, scale, -128 * numbers.sum(axis=1, dtype=np.int32)


def _slots(
    kept: Array, numbers: Array, offset: Array, starts: Array, outputs: int, size: int
) -> tuple[Array, Array]:
    """Inputs and weights as bytes, (groups, outputs, bytes).

    Rows are in the runs' order; ``offset`` is the input that each one's first column is.
    """
    rows = np.arange(len(kept))
    counts = kept.sum(axis=1)
    row = np.repeat(rows, counts)
    flat = np.flatnonzero(kept)
    input_ = flat - np.repeat(rows * kept.shape[1] - offset, counts)
    position = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = (starts[rows // outputs] * outputs + rows % outputs) * size
    slot = np.repeat(first, counts) + position // size * (outputs * size) + position % size
    total = int(starts[-1])
    index = np.empty((total, outputs, size), np.uint16)
    weights = np.zeros((total, outputs, size), numbers.dtype)
    last = offset.copy()  # what empty slots read again
    last[row] = input_  # the largest: columns rise
    run = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    index[:] = 8 * last.reshape(-1, outputs)[run][:, :, None]
    index.reshape(-1)[slot] = 8 * input_
    weights.reshape(-1)[slot] = numbers.reshape(-1)[flat]
    return index.view(np.uint8), weights.view(np.uint8)
