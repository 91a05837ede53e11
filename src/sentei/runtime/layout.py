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
from sentei.runtime.kernels.product import GROUP, TILE, group_bytes
from sentei.runtime.nonzeros import Array, Nonzeros

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


def quantised(weight: Nonzeros) -> tuple[Array, Array]:
    """The nonzeros as int8, and what one step of each row is worth."""
    largest = np.zeros(weight.shape[0], np.float32)
    first = np.flatnonzero(np.diff(weight.rows, prepend=-1))
    if len(first):
        largest[weight.rows[first]] = np.maximum.reduceat(np.abs(weight.values), first)
    scale = np.where(largest > NOTHING, largest / 127, 1).astype(np.float32)
    return np.rint(weight.values / scale[weight.rows]).astype(np.int8), scale


def pack(
    weight: Nonzeros,
    bias: Array,
    precision: Precision,
    outputs: int,
    *,
    shared: bool,
    piece: int | None = None,
) -> Runs:
    """Pack a matrix.

    Args:
        weight: (out, in).
        bias: fp32 (out,).
        precision: Of the weights.
        outputs: Of a run.
        shared: Whether they are neighbours that share their inputs.
        piece: Take so many inputs at a time, tile by tile of 64 outputs; None for all at once.
    """
    inputs = weight.shape[1]
    assert inputs <= MOST_INPUTS
    multiple = outputs if piece is None else TILE
    total = -(-weight.shape[0] // multiple) * multiple
    numbers, scale, start = _numbers(weight, precision)
    rows, first = np.arange(total), np.zeros(total, np.int64)
    row, column, segment, pieces = weight.rows, weight.columns, first, 1
    if piece is not None and piece < inputs:
        pieces = -(-inputs // piece)
        tile, number, place = np.unravel_index(
            np.arange(total * pieces), (total // TILE, pieces, TILE)
        )
        rows, first, segment = tile * TILE + place, number * piece, tile * pieces + number
        row = (row // TILE * pieces + column // piece) * TILE + row % TILE
        order = np.argsort(row, kind="stable")
        row, column, numbers = row[order], column[order], numbers[order]
    width = outputs if shared else 1
    lines = _lines(row, column, numbers, len(rows) // width, width)
    size = GROUP[precision]
    lengths = -(-lines.counts // size)
    order = np.lexsort((-lengths, segment[::width]))
    longest = lengths[order].reshape(-1, outputs // width).max(axis=1, initial=0)
    starts = np.zeros(len(longest) + 1, np.int64)
    np.cumsum(longest, out=starts[1:])
    rows = rows.reshape(-1, width)[order].ravel()
    facts = np.zeros(len(rows), FACTS)
    facts["row"], facts["bias"] = rows, _filled(bias, total)[rows]
    facts["scale"] = _filled(scale, total, 1)[rows]
    facts["start"] = _filled(start, total)[rows]
    slots = _slots(lines, order, first[::width][order], starts, outputs // width, size)
    groups = np.concatenate([_flat(one) for one in slots], axis=1)
    groups = groups.reshape(int(starts[-1]), group_bytes(precision, outputs, shared=shared))
    return Runs(precision, outputs, shared, pieces, groups, starts, facts)


@dataclass(frozen=True, eq=False)
class _Lines:
    """Rows, or blocks of rows: the ``counts[i]`` entries of line i are those from ``begin[i]`` on.

    ``columns`` is (entries,), ``numbers`` (entries, rows of a line).
    """

    counts: Array
    begin: Array
    columns: Array
    numbers: Array


def _lines(row: Array, column: Array, numbers: Array, lines: int, width: int) -> _Lines:
    """Nonzeros in lines of so many rows; where one of the rows has a zero, it is an entry too."""
    if width == 1:
        counts = np.bincount(row, minlength=lines)
        return _Lines(counts, np.cumsum(counts) - counts, column, numbers[:, None])
    inputs = int(column.max(initial=0)) + 1
    union = np.zeros(lines * inputs, bool)
    place = row // width * inputs + column
    union[place] = True
    entry = np.cumsum(union, dtype=np.int32)[place] - 1
    columns = np.flatnonzero(union) % inputs
    every = np.zeros((len(columns), width), numbers.dtype)
    every[entry, row % width] = numbers
    counts = union.reshape(lines, inputs).sum(axis=1)
    return _Lines(counts, np.cumsum(counts) - counts, columns, every)


def _filled(values: Array, total: int, value: float = 0) -> Array:
    """So many numbers, with a value at the end."""
    return np.pad(values, (0, total - len(values)), constant_values=value)


def _flat(groups: Array) -> Array:
    """Each group's bytes in a row; there may be no group at all."""
    return groups.reshape(len(groups), math.prod(groups.shape[1:]))


def _numbers(weight: Nonzeros, precision: Precision) -> tuple[Array, Array, Array]:
    """The weights as they are stored, what a step of each row is worth, what sums begin with."""
    outputs = weight.shape[0]
    scale, start = np.ones(outputs, np.float32), np.zeros(outputs, np.int32)
    if precision == "fp32":
        return weight.values, scale, start
    if precision == "bf16":
        return bf16(weight.values), scale, start
    numbers, scale = quantised(weight)
    sums = np.bincount(weight.rows, numbers, minlength=outputs)  # float64, and exact
    return numbers, scale, -128 * sums.astype(np.int32)


def _slots(
    lines: _Lines, order: Array, offset: Array, starts: Array, lanes: int, size: int
) -> tuple[Array, Array]:
    """Weights, (groups * lanes, rows of a line, bytes), and inputs, (groups * lanes, bytes).

    Lines are taken in ``order``, that of the runs, and ``lanes`` of them are a run. Where inputs
    are taken in pieces, ``offset`` is the first input of each line's.
    """
    counts = lines.counts[order]
    line = np.repeat(np.arange(len(order), dtype=np.int32), counts)
    position = np.arange(len(line)) - (np.cumsum(counts) - counts)[line]
    entry = lines.begin[order][line] + position
    columns = lines.columns[entry]
    run, lane = np.divmod(np.arange(len(order)), lanes)
    first = (starts[run] * lanes + lane) * size
    slot = first[line] + position // size * (lanes * size) + position % size
    total, width = int(starts[-1]) * lanes, lines.numbers.shape[1]
    index = np.empty((total, size), np.uint16)
    weights = np.zeros((total * size, width), lines.numbers.dtype)
    last = offset.copy()  # what empty slots read again
    last[line] = columns  # the largest: columns rise
    run = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    index[:] = 8 * last.reshape(-1, lanes)[run].reshape(total, 1)
    index.reshape(-1)[slot] = 8 * columns
    weights[slot] = lines.numbers[entry]
    weights = np.ascontiguousarray(weights.reshape(total, size, width).transpose(0, 2, 1))
    return weights.view(np.uint8), index.view(np.uint8)
