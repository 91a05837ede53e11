"""Numbers that are not finite stay in their sequence, and are seen in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.kernels import FORMS, load_apart, targets
from helpers.random_encoders import batch, encoder, outputs
from sentei.runtime import library, program
from sentei.runtime.program import Program

LENGTHS = [5, 20, 1, 30, 70, 4]
SPOILT = 3


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    monkeypatch.setattr(library, "load", load_apart)
    monkeypatch.setattr(program, "host", lambda isa: targets()[isa])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("norm_first", [False, True], ids=["norm after", "norm first"])
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_of_one_sequence(cpu, precision, norm_first, value):
    """Others beside it are what they would be, to the bit; its own are what torch gives: NaN."""
    some = encoder(norm_first=norm_first, heads=(2, 1, 2), relative=True)
    packed = batch(some, LENGTHS, rows=True)
    made = Program(some, precision, threads=1, isa=cpu)
    well = outputs(made, packed, some.hidden)
    rows = packed.rows.copy()
    start = sum(LENGTHS[:SPOILT])
    rows[start + 7, 5] = value
    found = outputs(made, replace(packed, rows=rows), some.hidden)
    end = start + LENGTHS[SPOILT]
    others = np.delete(packed.out, slice(start, end))
    assert (found[others] == well[others]).all()
    if np.isinf(value):
        assert np.isnan(found[packed.out[start + 7]]).all()
    elif np.isnan(value):
        assert np.isnan(found[packed.out[start:end]]).all()


@pytest.mark.parametrize("cpu, precision", FORMS)
def test_what_was_not_finite_does_not_stay(cpu, precision):
    """The memory that is used again holds none of it."""
    some = encoder()
    bad, good = batch(some, [64, 40], rows=True), batch(some, [9, 50])
    made = Program(some, precision, threads=1, isa=cpu)
    before = outputs(made, good, some.hidden)
    outputs(made, replace(bad, rows=np.full_like(bad.rows, np.nan)), some.hidden)
    assert (outputs(made, good, some.hidden) == before).all()
