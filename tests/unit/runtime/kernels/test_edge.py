"""In and out of panels, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.guarded import SIDES, guarded, zeros
from helpers.kernels import CPUS, call, targets
from sentei.runtime.kernels import edge
from sentei.runtime.kernels.kernel import WIDTHS, Slot

FEATURES = (16, 20, 28, 32, 44, 100)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("tables", [1, 2, 3])
@pytest.mark.parametrize("cpu", CPUS)
def test_enter(cpu, tables, side):
    target, rng = targets()[cpu], np.random.default_rng(0)
    for width in WIDTHS:
        for features in FEATURES:
            rows = [
                guarded(rng.normal(size=(5, features)).astype(np.float32), side)
                for _ in range(tables)
            ]
            ids = rng.integers(0, 5, (tables, width))
            places = [one.ctypes.data + 4 * features * i for one, i in zip(rows, ids, strict=True)]
            slots = {
                Slot.ROWS: [guarded(np.stack(places), side)],
                Slot.SUM: [zeros((features, width), side=side)],
            }
            words = [features, Slot.SUM, Slot.ROWS]
            call(edge.enter(tables, width, target), target, words, slots, parts=3)
            expected = sum(one[i] for one, i in zip(rows, ids, strict=True)).T
            assert (slots[Slot.SUM][0] == expected).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("cpu", CPUS)
def test_leave(cpu, side):
    target, rng = targets()[cpu], np.random.default_rng(0)
    for width in WIDTHS:
        for features in FEATURES:
            x = rng.normal(size=(features, width)).astype(np.float32)
            out = guarded(np.full((width + 2, features), 7, np.float32), side)
            order = rng.permutation(width + 2)[:width]
            slots = {
                Slot.OUT: [guarded(out.ctypes.data + 4 * features * order, side)],
                Slot.STREAM: [guarded(x, side)],
            }
            words = [features, Slot.STREAM, Slot.OUT]
            call(edge.leave(width, target), target, words, slots, parts=2)
            assert (out[order] == x.T).all()
            others = np.setdiff1d(np.arange(width + 2), order)
            assert (out[others] == 7).all()
