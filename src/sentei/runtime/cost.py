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
    """Nanoseconds of one thread for 64 tokens."""

    group: float
    run: float

    def of(self, groups: int, runs: int) -> float:
        """Nanoseconds of a product."""
        return self.group * groups + self.run * runs


COSTS: Final[dict[tuple[Isa, Precision], tuple[Cost, Cost]]] = {
    ("avx512", "int8"): (Cost(1.32, 5.0), Cost(2.2, 20.0)),
    ("avx512", "bf16"): (Cost(1.2, 5.0), Cost(2.1, 18.0)),
    ("avx512", "fp32"): (Cost(1.0, 4.0), Cost(2.1, 18.0)),
    ("avx2", "fp32"): (Cost(1.9, 4.0), Cost(4.4, 18.0)),
    ("generic", "fp32"): (Cost(3.8, 8.0), Cost(9.0, 36.0)),
}
"""Of rows and of blocks."""


def groups_of(weight: Array, precision: Precision, block: int) -> int:
    """Groups that a matrix needs, without packing it."""
    kept = (weight != 0).reshape(len(weight) // block, block, -1).any(axis=1)
    return int((-(-kept.sum(axis=1) // GROUP[precision])).sum())


def best(weight: Array, precision: Precision, isa: Isa) -> tuple[int, float]:
    """Outputs of a run (1 or 4) that a matrix is multiplied fastest with, and the nanoseconds."""
    rows, blocks = COSTS[isa, precision]
    single = rows.of(groups_of(weight, precision, 1), len(weight))
    if len(weight) % BLOCK:
        return 1, single
    shared = blocks.of(groups_of(weight, precision, BLOCK), len(weight) // BLOCK)
    return (1, single) if single <= shared else (BLOCK, shared)
