"""What a product costs, by lines fitted to measurements: so much a group, so much an output.

`python -m benchmarks.runtime_cost` measures and fits these numbers; they are of an AMD EPYC (Zen 5,
4.4 GHz). Which of the layouts is fastest depends on their ratios, which follow from the number of
instructions and hold on other CPUs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sentei.runtime.cpu import Isa, Precision
from sentei.runtime.kernels.product import BLOCK, GROUP
from sentei.runtime.nonzeros import Array, Nonzeros

CACHE: Final = 48 << 10
"""Bytes of activations that stay in the nearest cache."""

PIECE: Final[dict[Precision, int]] = {"fp32": 128, "bf16": 256, "int8": 512}
"""Inputs taken at a time where they are taken in pieces: 32 KiB of 64 tokens."""

ROWS: Final[dict[Isa, int]] = {"avx512": 4, "avx2": 1, "generic": 1}
"""Outputs side by side in a run of rows, as the registers allow."""


@dataclass(frozen=True)
class Cost:
    """Nanoseconds of one thread for 64 tokens.

    ``group`` is of a group of rows for one output whose inputs are in the nearest cache, ``far`` of
    one whose inputs are not, ``shared`` of a group of a block for one output, ``output`` of an
    output, ``wait`` of an output's sums that wait for the next piece.
    """

    group: float
    far: float
    shared: float
    output: float
    wait: float


COSTS: Final[dict[tuple[Isa, Precision], Cost]] = {
    ("avx512", "int8"): Cost(1.155, 1.389, 0.565, 6.113, 5.229),
    ("avx512", "bf16"): Cost(0.996, 1.185, 0.548, 5.597, 3.603),
    ("avx512", "fp32"): Cost(0.863, 1.159, 0.573, 5.985, 4.129),
    ("avx2", "int8"): Cost(2.854, 3.173, 1.944, 2.111, 0.000),
    ("avx2", "fp32"): Cost(1.292, 1.808, 1.168, 0.000, 5.795),
    ("generic", "fp32"): Cost(3.443, 3.942, 3.816, 4.452, 11.008),
}


@dataclass(frozen=True)
class Choice:
    """How a matrix is packed, and what a product with it costs for 64 tokens."""

    outputs: int
    shared: bool
    piece: int | None
    nanoseconds: float


def choices(weight: Nonzeros, precision: Precision, isa: Isa) -> list[Choice]:
    """The layouts that a matrix can have, with their costs."""
    return layouts(weight, precision, COSTS[isa, precision], ROWS[isa])


def layouts(weight: Nonzeros, precision: Precision, cost: Cost, side_by_side: int) -> list[Choice]:
    """The same for costs that are given: rows, rows in pieces, blocks."""
    size, (outputs, inputs) = GROUP[precision], weight.shape
    near = inputs * 64 * 4 // size <= CACHE
    groups = _groups(weight.counts(), size)
    result = [
        Choice(
            side_by_side,
            False,
            None,
            groups * (cost.group if near else cost.far) + outputs * cost.output,
        )
    ]
    piece = PIECE[precision]
    if not near and inputs > piece:
        pieces = -(-inputs // piece)
        counts = np.bincount(weight.rows * pieces + weight.columns // piece)
        waiting = outputs * (pieces - 1) * cost.wait
        spent = _groups(counts, size) * cost.group + outputs * cost.output + waiting
        result.append(Choice(side_by_side, False, piece, spent))
    union = np.zeros((-(-outputs // BLOCK), inputs), bool)
    union[weight.rows // BLOCK, weight.columns] = True
    groups = _groups(union.sum(axis=1), size)
    spent = groups * BLOCK * cost.shared + outputs * cost.output
    return [*result, Choice(BLOCK, True, None, spent)]


def best(weight: Nonzeros, precision: Precision, isa: Isa) -> Choice:
    """The layout that a matrix is multiplied fastest with."""
    return min(choices(weight, precision, isa), key=lambda choice: choice.nanoseconds)


def _groups(lengths: Array, size: int) -> int:
    return int((-(-lengths // size)).sum())
