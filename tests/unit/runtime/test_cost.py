"""The costs are those that were measured, and choose what should be chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.machine import RESULTS

from sentei.runtime import cost
from sentei.runtime.nonzeros import Nonzeros


def test_costs_are_the_measured_ones():
    measured = json.loads((RESULTS / "runtime_cost.json").read_text(encoding="utf-8"))["fits"]
    found = {(one["isa"], one["precision"]): cost.Cost(**one["costs"]) for one in measured}
    assert found == cost.COSTS, "copy the fits of python -m benchmarks.runtime_cost"


@pytest.mark.parametrize("isa, precision", cost.COSTS)
def test_what_is_chosen(isa, precision):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((768, 768)).astype(np.float32)
    single = weight * (rng.random(weight.shape) < 0.1)
    blocks = weight * np.repeat(rng.random((192, 768)) < 0.1, 4, axis=0)
    dense, single, blocks = map(Nonzeros.of, (weight, single, blocks))
    few = isa == "generic"  # whose registers are too few for what blocks share
    assert cost.best(dense, precision, isa).shared or few, "dense is blocks of all inputs"
    assert not cost.best(single, precision, isa).shared
    assert cost.best(blocks, precision, isa).shared or few
    by_layout = cost.choices(single, precision, isa)
    assert cost.best(single, precision, isa).nanoseconds == min(c.nanoseconds for c in by_layout)
    assert all(choice.nanoseconds > 0 for choice in by_layout)


def test_nothing_costs_next_to_nothing():
    choice = cost.best(Nonzeros.of(np.zeros((5, 64), np.float32)), "int8", "avx512")
    assert choice.nanoseconds < 100
