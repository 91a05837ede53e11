"""What a product costs, by a line fitted to measurements: so much a group, so much a run.

`python -m benchmarks.runtime_cost` measures and fits these numbers; they are of an AMD EPYC (Zen 5,
4.4 GHz). Which of two layouts is faster depends on their ratios, which follow from the number of
instructions and hold on other CPUs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sentei.runtime.cpu import Isa, Precision
from sentei.runtime.encoder import Array
from sentei.runtime.kernels.product import BLOCK, GROUP


@dataclass(frozen=True)
class Cost:
    """Nanoseconds of one thread for 64 tokens: of a group for one output, and of an output."""

    group: float
    output: float

    def of(self, groups: int, outputs: int) -> float:
        """Nanoseconds of a product."""
        return self.group * groups + self.output * outputs


COSTS: Final[dict[tuple[Isa, Precision], tuple[Cost, Cost]]] = {
    ("avx512", "int8"): (Cost(1.25, 5.0), Cost(0.55, 5.0)),
    ("avx512", "bf16"): (Cost(1.15, 5.0), Cost(0.52, 5.0)),
    ("avx512", "fp32"): (Cost(1.1, 4.0), Cost(0.52, 5.0)),
    ("avx2", "fp32"): (Cost(1.9, 4.0), Cost(1.1, 5.0)),
    ("generic", "fp32"): (Cost(3.8, 8.0), Cost(2.2, 9.0)),
}
"""Of rows and of blocks."""


@dataclass(frozen=True)
class Choice:
    """How a matrix is packed, and what a product with it costs for 64 tokens."""

    outputs: int
    shared: bool
    nanoseconds: float


def best(weight: Array, precision: Precision, isa: Isa) -> Choice:
    """The layout that a matrix is multiplied fastest with."""
    rows, blocks = COSTS[isa, precision]
    size, outputs = GROUP[precision], len(weight)
    kept = weight != 0
    single = int((-(-kept.sum(axis=1) // size)).sum())
    whole = kept[: outputs // BLOCK * BLOCK].reshape(-1, BLOCK, kept.shape[1]).any(axis=1)
    rest = kept[outputs // BLOCK * BLOCK :].any(axis=0)
    union = int((-(-whole.sum(axis=1) // size)).sum()) + -(-int(rest.sum()) // size)
    choices = (
        Choice(ROWS[isa], False, rows.of(single, outputs)),
        Choice(BLOCK, True, blocks.of(BLOCK * union, outputs)),
    )
    return min(choices, key=lambda choice: choice.nanoseconds)


ROWS: Final[dict[Isa, int]] = {"avx512": 4, "avx2": 1, "generic": 1}
"""Outputs side by side in a run of rows, as the registers allow."""
