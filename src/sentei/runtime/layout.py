"""Weights as the product kernels read them: runs of groups, and the facts of each output.

A run belongs to one output (``rows``) or to four neighbouring ones (``blocks``). Its groups hold
the weights of one, two or four inputs (fp32, bf16, int8; 4 bytes for each output), then the numbers
of these inputs times 8 in two bytes each. A short last group is filled up with zeros at the last
input. Runs are ordered by length, so that the loop over a run ends when the CPU expects it to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sentei.runtime.cpu import Precision
from sentei.runtime.encoder import Array
from sentei.runtime.kernels.product import GROUP, group_bytes

MOST_INPUTS: Final = 8191
"""Inputs of a product: their numbers times 8 are 16 bits wide."""

FACTS: Final = np.dtype(
    [("row", np.int32), ("bias", np.float32), ("scale", np.float32), ("start", np.int32)]
)


@dataclass(frozen=True, eq=False)
class Runs:
    """A matrix, packed.

    ``groups`` is bytes (groups, bytes of one), ``starts`` (runs + 1,), ``facts`` (outputs,) in the
    order of the runs.
    """

    precision: Precision
    block: int
    groups: Array
    starts: Array
    facts: Array

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.starts) - 1

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
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def pack(weight: Array, bias: Array, precision: Precision, block: int) -> Runs:
    """Pack a matrix.

    Args:
        weight: fp32 (out, in).
        bias: fp32 (out,).
        precision: Of the weights.
        block: 1, or 4 where outputs are a multiple of 4.
    """
    outputs, inputs = weight.shape
    assert inputs <= MOST_INPUTS and outputs % block == 0
    kept = (weight != 0).reshape(outputs // block, block, inputs).any(axis=1)
    scale = np.ones(outputs, np.float32)
    start = np.zeros(outputs, np.int32)
    numbers: Array = weight
    if precision == "int8":
        numbers, scale = quantised(weight)
        start = -128 * numbers.sum(axis=1, dtype=np.int32)
    elif precision == "bf16":
        numbers = bf16(weight)
    size = GROUP[precision]
    lengths = -(-kept.sum(axis=1) // size)
    order = np.argsort(-lengths, kind="stable")
    starts = np.zeros(len(order) + 1, np.int64)
    np.cumsum(lengths[order], out=starts[1:])
    rows = (order[:, None] * block + np.arange(block)).ravel()
    facts = np.zeros(outputs, FACTS)
    facts["row"], facts["bias"] = rows, bias[rows]
    facts["scale"], facts["start"] = scale[rows], start[rows]
    groups = _groups(kept[order], numbers[rows], starts, size, block)
    assert groups.shape[1] == group_bytes(precision, block)
    return Runs(precision, block, groups, starts, facts)


def _groups(kept: Array, numbers: Array, starts: Array, size: int, block: int) -> Array:
    """The stream; ``kept`` (runs, in) and ``numbers`` (outputs, in) are in the runs' order."""
    run, column = np.nonzero(kept)
    first = np.searchsorted(run, np.arange(len(kept)))
    slot = starts[run] * size + np.arange(len(run)) - first[run]
    total = int(starts[-1])
    index = np.zeros(total * size, np.uint16)
    ends = np.append(first, len(run))
    for_run = np.repeat(np.arange(len(kept)), np.diff(starts) * size)
    index[:] = column[ends[for_run + 1] - 1] * 8 if len(run) else 0
    index[slot] = column * 8
    weights = np.zeros((block, total * size), numbers.dtype)
    for row in range(block):
        weights[row, slot] = numbers[run * block + row, column]
    parts = weights.reshape(block, total, size).transpose(1, 0, 2)
    raw = np.ascontiguousarray(parts).view(np.uint8).reshape(total, 4 * block)
    return np.concatenate([raw, index.reshape(total, size).view(np.uint8)], axis=1)
