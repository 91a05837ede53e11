"""The selection that never waits, against sorting, on the scores that break cuts."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentei.pruning import selection
from sentei.pruning.selection import Rows, Selection, Wanted

NASTY = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-40, 3e-39, 1e38, -1e38, math.inf, -math.inf]
)
VALUES = st.one_of(NASTY, st.floats(width=32, allow_nan=False), st.integers(-3, 3).map(float))


def rows_of(matrices, places, quotas):
    """Rows as they are handed to a selection, with masks that keep all."""
    return [
        Rows(partial(torch.clone, m), torch.ones_like(m, dtype=torch.bool), p, q)
        for m, p, q in zip(matrices, places, quotas, strict=True)
    ]


def by_sorting(rows, counts):
    """Stable sort of each quota: lowest first, ties by the number of the place, then index."""
    lines = {
        p: (q, r)
        for one in rows
        for p, q, r in zip(one.places, one.quotas, one.read(), strict=True)
    }
    kept = {}
    for quota, count in enumerate(counts):
        places = sorted(p for p, (q, _) in lines.items() if q == quota)
        values = np.concatenate([lines[p][1].numpy() for p in places] or [np.zeros(0)]) + 0.0
        keep = np.ones(values.size, dtype=bool)
        keep[np.argsort(values, kind="stable")[:count]] = False
        sizes = [lines[p][1].numel() for p in places]
        kept |= dict(zip(places, torch.from_numpy(keep).split(sizes), strict=True))
    return kept


@st.composite
def cases(draw):
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    quotas = draw(st.integers(1, 3))
    shapes = draw(
        st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), max_size=3, min_size=1)
    )
    places = list(range(sum(rows for rows, _ in shapes)))
    places = draw(st.permutations(places))
    matrices, mine, theirs, totals = [], [], [], [0] * quotas
    for count, entries in shapes:
        values = draw(st.lists(VALUES, min_size=count * entries, max_size=count * entries))
        matrices.append(torch.tensor(values, dtype=dtype).view(count, entries))
        mine.append([places.pop() for _ in range(count)])
        theirs.append([draw(st.integers(0, quotas - 1)) for _ in range(count)])
        for quota in theirs[-1]:
            totals[quota] += entries
    counts = [draw(st.integers(0, total)) for total in totals]
    return rows_of(matrices, mine, theirs), counts


@pytest.mark.parametrize("held", [1 << 28, 0])
def test_all_quotas_at_once_equal_sorting(monkeypatch, held):
    monkeypatch.setattr(selection, "HELD", held)

    @settings(max_examples=400, deadline=None)
    @given(cases())
    def check(case):
        rows, counts = case
        expected = by_sorting(rows, counts)
        numbers = Selection(rows, [Wanted(count) for count in counts]).wait()
        assert not numbers.nan
        for one in rows:
            for place, keep in zip(one.places, one.keep, strict=True):
                assert torch.equal(keep, expected[place])
                pruned = int((~keep).sum())
                assert numbers.pruned[place] == numbers.flips[place] == pruned
        by_quota = [[] for _ in counts]
        for one in rows:
            for quota, values in zip(one.quotas, one.read(), strict=True):
                by_quota[quota] += values.tolist()
        for count, values, at in zip(counts, by_quota, numbers.thresholds, strict=True):
            assert not count or at == sorted(values)[count - 1]

    check()


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, min_size=4, max_size=40), VALUES, st.integers(0, 40))
def test_a_threshold_prunes_what_is_no_higher_up_to_the_count(values, threshold, most):
    scores = torch.tensor([values])
    threshold = float(torch.tensor(threshold))
    [rows] = rows_of([scores], [[0]], [[0]])
    under = int((scores <= threshold).sum())
    Selection([rows], [Wanted(most, threshold=threshold)])
    expected = by_sorting([rows], [min(most, under)])
    assert torch.equal(rows.keep[0], expected[0])


def test_a_strict_quota_leaves_what_is_equal_to_its_threshold():
    [rows] = rows_of([torch.tensor([[1.0, 2.0, 2.0, 3.0]])], [[0]], [[0]])
    assert Selection([rows], [Wanted(2, strict=True)]).wait().pruned == {0: 1}
    assert rows.keep.tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("nan", [math.nan, -math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_is_told_and_prunes_nothing(nan, dtype):
    scores = torch.linspace(0, 1, 100, dtype=dtype).view(2, 50)
    scores[1, 7] = nan
    rows = rows_of([scores], [[0, 1]], [[0, 0]])
    assert Selection(rows, [Wanted(50)]).wait().nan
    assert rows[0].keep.all()


def test_flips_are_counted_in_both_directions():
    [rows] = rows_of([torch.tensor([[1.0, 2.0, 3.0, 4.0]])], [[0]], [[0]])
    rows.keep.copy_(torch.tensor([True, False, True, False]))
    assert Selection([rows], [Wanted(2)]).wait().flips == {0: 2}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-5, 4200), min_size=1, max_size=60), st.sampled_from([2, 7, 4096]))
def test_what_is_outside_of_the_bins_is_not_counted(numbers, bins):
    inside = [number for number in numbers if 0 <= number < bins]
    counts = selection._count(torch.tensor(numbers, dtype=torch.int32), bins)
    assert counts.tolist() == np.bincount(inside, minlength=bins).tolist()
