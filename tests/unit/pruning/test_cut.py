"""The cut against sorting, on the scores that break cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scores import stored
from sentei.pruning.cut import (
    Bracket,
    Cut,
    cut_at,
    find_cut,
    next_bracket,
    prune_,
    prune_rows_,
)
from sentei.tensors import Scores


def kept_by_sorting(tensors: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    """Stable sort of everything at once: lowest first, ties by tensor order, then index."""
    everything = np.concatenate([t.numpy() for t in tensors]) + 0.0
    order = np.argsort(everything, kind="stable")
    kept = np.ones(len(everything), dtype=bool)
    kept[order[:count]] = False
    return list(torch.from_numpy(kept).split([t.numel() for t in tensors]))


def cut_and_prune(tensors, count, warm=None):
    scores = [stored(tensor) for tensor in tensors]
    cut, bracket = find_cut(scores, count, warm)
    masks = [torch.ones(t.numel(), dtype=torch.bool) for t in tensors]
    flips = prune_(masks, scores, cut)
    return masks, flips, cut, bracket


NASTY = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-40, 3e-39, 1e38, -1e38, float("inf"), float("-inf")]
)
VALUES = st.one_of(NASTY, st.floats(width=32, allow_nan=False), st.integers(-3, 3).map(float))


@st.composite
def score_sets(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    tensors = [
        torch.tensor(draw(st.lists(VALUES, min_size=n, max_size=n)), dtype=dtype) for n in sizes
    ]
    return tensors, draw(st.integers(0, sum(sizes)))


@pytest.fixture(params=["numpy", "torch"])
def arithmetic(request, monkeypatch):
    """Both implementations of the piece operations: numpy's and the one for other devices."""
    if request.param == "torch":
        monkeypatch.setattr("sentei.pruning.cut._on_cpu", lambda piece: False)
    return request.param


@pytest.mark.parametrize("chunk", [1 << 18, 7])
def test_cut_equals_sorting(arithmetic, monkeypatch, chunk):
    monkeypatch.setattr("sentei.tensors.CHUNK", chunk)
    monkeypatch.setattr("sentei.pruning.cut.CHUNK", chunk)

    @settings(max_examples=500, deadline=None)
    @given(score_sets())
    def check(case):
        tensors, count = case
        expected = kept_by_sorting(tensors, count)
        masks, flips, _, bracket = cut_and_prune(tensors, count)
        assert sum(int((~m).sum()) for m in masks) == count == flips
        assert all(torch.equal(m, e) for m, e in zip(masks, expected, strict=True))
        warm, _, _, _ = cut_and_prune(tensors, count, bracket)
        assert all(torch.equal(m, e) for m, e in zip(warm, expected, strict=True))

    check()


@settings(max_examples=300, deadline=None)
@given(score_sets(), VALUES, VALUES)
def test_any_bracket_gives_the_same_cut(case, low, high):
    tensors, count = case
    expected = kept_by_sorting(tensors, count)
    masks, _, _, _ = cut_and_prune(tensors, count, Bracket(low, high, low))
    assert all(torch.equal(m, e) for m, e in zip(masks, expected, strict=True))


def test_warm_cut_reads_every_score_once():
    torch.manual_seed(0)
    scores = torch.rand(100_000)
    reads = 0

    def read(start, stop):
        nonlocal reads
        reads += stop - start
        return scores[start:stop]

    sites = [Scores(scores.numel(), torch.device("cpu"), read)]
    _, bracket = find_cut(sites, 50_000)
    reads = 0
    cut, _ = find_cut(sites, 50_100, bracket)
    assert reads == 100_000
    assert cut.below + cut.ties == 50_100
    assert cut.threshold == torch.sort(scores).values[50_099].item()


def test_drifting_scores_stay_exact_and_mostly_warm():
    torch.manual_seed(0)
    scores, cold = torch.rand(50_000), 0
    bracket = None
    for count in range(1_000, 41_000, 400):
        scores *= 0.99 + 0.02 * torch.rand_like(scores)
        cold += bracket is None or not (
            bracket.low <= torch.sort(scores).values[count - 1] <= bracket.high
        )
        masks, _, _, bracket = cut_and_prune([scores], count, bracket)
        assert int((~masks[0]).sum()) == count
    assert cold < 20


def test_a_threshold_that_moves_on_is_expected_further_on():
    bracket = None
    for step in range(1, 20):
        bracket = next_bracket(0.1 * step, bracket, 0.0, 0.0)
    assert bracket.low < 2.0 < bracket.high
    assert bracket.high - bracket.low == pytest.approx(0.05)
    turned = next_bracket(1.8, bracket, 0.0, 0.0)
    assert turned.low < 1.7 and 1.9 < turned.high


def test_flips_count_both_directions():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    mask = torch.tensor([True, False, True, False])
    cut, _ = find_cut([stored(scores)], 2)
    assert prune_([mask], [stored(scores)], cut) == 2
    assert mask.tolist() == [False, False, True, True]


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
@pytest.mark.parametrize("warm", [None, Bracket(0.4, 0.6, 0.5)])
def test_nan_is_refused(arithmetic, nan, warm):
    scores = torch.linspace(0, 1, 100)
    scores[7] = nan
    with pytest.raises(FloatingPointError):
        cut_and_prune([scores], 50, warm)


@pytest.mark.parametrize("count", [-1, 5])
def test_count_out_of_range(count):
    with pytest.raises(ValueError, match=f"cannot prune {count} of 4"):
        find_cut([stored(torch.ones(4))], count)


@settings(max_examples=300, deadline=None)
@given(score_sets(), VALUES)
def test_cut_at_prunes_what_is_no_higher(case, threshold):
    tensors, _ = case
    cut = cut_at([stored(tensor) for tensor in tensors], threshold)
    expected = [tensor > threshold for tensor in tensors]
    masks = [torch.ones(t.numel(), dtype=torch.bool) for t in tensors]
    prune_(masks, [stored(tensor) for tensor in tensors], cut)
    assert all(torch.equal(m, e) for m, e in zip(masks, expected, strict=True))
    assert cut.below + cut.ties == sum(int((~e).sum()) for e in expected)
    assert cut.below == sum(int((tensor < threshold).sum()) for tensor in tensors)


def test_cut_at_by_hand():
    scores = [stored(torch.tensor([1.0, 2.0, 3.0])), stored(torch.tensor([2.0, -2.0]))]
    assert cut_at(scores, 2.0) == Cut(2.0, 2, 2)
    assert cut_at(scores, 0.0) == Cut(0.0, 1, 0)
    assert cut_at(scores, -math.inf) == Cut(-math.inf, 0, 0)


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
def test_cut_at_refuses_nan(nan):
    with pytest.raises(FloatingPointError):
        cut_at([stored(torch.tensor([1.0, nan]))], 0.5)


@pytest.mark.parametrize("transposed", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_ranked_alone_equal_sorting_each(transposed, data):
    """The lowest of every row, the first of equal ones; the first rows lose the odd ones."""
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    values = st.lists(VALUES, min_size=columns, max_size=columns)
    scores = torch.tensor(data.draw(st.lists(values, min_size=rows, max_size=rows)))
    count = data.draw(st.integers(0, rows * columns))
    mask = torch.ones((columns, rows) if transposed else (rows, columns), dtype=torch.bool)
    given_ = scores.T.contiguous().T if transposed else scores
    flips = prune_rows_(mask.T if transposed else mask, given_, count)
    assert flips == count == int((~mask).sum())
    found = mask.T if transposed else mask
    for row in range(rows):
        lowest = count // rows + (row < count % rows)
        [kept] = kept_by_sorting([scores[row]], lowest)
        assert torch.equal(found[row], kept)
    assert prune_rows_(found, given_, count) == 0


def test_rows_with_a_score_that_is_no_number():
    with pytest.raises(FloatingPointError, match="a score is NaN"):
        prune_rows_(torch.ones(1, 2, dtype=torch.bool), torch.tensor([[1.0, float("nan")]]), 1)
