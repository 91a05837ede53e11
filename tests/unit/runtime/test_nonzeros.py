"""A matrix by its nonzeros."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sentei.runtime.nonzeros import Nonzeros

floats = st.floats(-10, 10, width=32) | st.just(0.0) | st.just(-0.0)
shapes = st.tuples(st.integers(0, 6), st.integers(0, 6))
matrices = arrays.arrays(np.float32, shapes, elements=floats)


def dense(nonzeros: Nonzeros) -> np.ndarray:
    found = np.zeros(nonzeros.shape, np.float32)
    found[nonzeros.rows, nonzeros.columns] = nonzeros.values
    return found


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(weight=matrices)
def test_two_ways_to_the_same(weight):
    found = Nonzeros.of(weight)
    places = np.flatnonzero(weight != 7)  # all, zeros too
    other = Nonzeros.at(weight.shape, places, weight.ravel()[places])
    for one in (found, other):
        assert (
            one.shape == weight.shape and (dense(one) == weight).all() and (one.values != 0).all()
        )
        assert (one.rows == found.rows).all() and (one.columns == found.columns).all()
        assert (one.counts() == (weight != 0).sum(axis=1)).all()
    order = found.rows.astype(np.int64) * 7 + found.columns
    assert (np.diff(order) > 0).all()


@pytest.mark.parametrize("factor", [1, 0.125, 1e-30])
def test_what_a_factor_makes_zero_is_left_out(factor):
    weight = np.array([[1, 0, -2], [1e-20, 3, 0]], np.float32)
    found = Nonzeros.of(weight).times(factor)
    assert (dense(found) == weight * np.float32(factor)).all()
    assert len(found.values) == (weight * np.float32(factor) != 0).sum()
