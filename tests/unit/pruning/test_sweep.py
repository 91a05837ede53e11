"""The cut in one sweep, against the cut in two."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.scores import stored
from sentei.pruning import sweep
from sentei.pruning.cut import Bracket, Cut, Ranking, cut_at, find_cut, prune_
from sentei.pruning.sweep import sweep_
from sentei.tensors import Scores

VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 1e38, float("inf"), float("-inf")]),
    st.floats(width=32, allow_nan=False),
    st.integers(-3, 3).map(float),
)


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    values = [draw(st.lists(VALUES, min_size=n, max_size=n)) for n in sizes]
    masks = [draw(st.lists(st.booleans(), min_size=n, max_size=n)) for n in sizes]
    tensors = [torch.tensor(one, dtype=dtype) for one in values]
    return tensors, [torch.tensor(one) for one in masks], draw(st.integers(0, sum(sizes)))


def standing(tensor: torch.Tensor) -> Scores:
    return Scores(tensor.numel(), tensor.device, lambda a, b: tensor[a:b], stands=True)


def in_two(tensors, masks, cut):
    masks = [mask.clone() for mask in masks]
    return masks, prune_(masks, [stored(tensor) for tensor in tensors], cut)


def swept(tensors, masks, count, warm=None, *, threshold=None, strict=False):
    masks = [mask.clone() for mask in masks]
    ranking = Ranking([standing(tensor) for tensor in tensors], count, threshold, warm)
    return masks, sweep_(masks, ranking, strict=strict)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("chunk", [1 << 18, 7])
def test_a_sweep_finds_what_two_passes_find(monkeypatch, chunk, threads):
    for module in ("sentei.tensors", "sentei.pruning.cut", "sentei.pruning.sweep"):
        monkeypatch.setattr(f"{module}.CHUNK", chunk)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    @settings(max_examples=300, deadline=None)
    @given(cases(), VALUES, VALUES)
    @example(([torch.tensor([math.inf])], [torch.tensor([False])], 1), math.inf, math.inf)
    def check(case, low, high):
        tensors, masks, count = case
        low, high = torch.tensor([low, high], dtype=tensors[0].dtype).tolist()
        warm = Bracket(low, high, low)
        expected = find_cut([stored(tensor) for tensor in tensors], count, warm)
        found, result = swept(tensors, masks, count, warm)
        if result is None:
            assert all(torch.equal(*pair) for pair in zip(found, masks, strict=True))
            return
        after, flips = in_two(tensors, masks, expected[0])
        assert (result.cut, result.flips) == (expected[0], flips)
        assert result.bracket is not None
        ends = zip(astuple(result.bracket), astuple(expected[1]), strict=True)
        assert all(one == other or (one != one and other != other) for one, other in ends)
        assert all(torch.equal(*pair) for pair in zip(found, after, strict=True))

    check()


@settings(max_examples=300, deadline=None)
@given(cases(), VALUES, st.booleans())
def test_a_given_threshold(case, threshold, strict):
    tensors, masks, count = case
    cut = cut_at([stored(tensor) for tensor in tensors], threshold)
    found, result = swept(tensors, masks, count, threshold=threshold, strict=strict)
    if not count or cut.below + cut.ties > count:
        assert result is None
        return
    cut = Cut(cut.threshold, cut.below, 0) if strict else cut
    after, flips = in_two(tensors, masks, cut)
    assert (result.cut, result.flips, result.bracket) == (cut, flips, None)
    assert all(torch.equal(*pair) for pair in zip(found, after, strict=True))


def test_a_bracket_that_holds_the_threshold_is_enough():
    torch.manual_seed(0)
    scores, mask = torch.rand(1000), torch.rand(1000) < 0.5
    found, result = swept([scores], [mask], 500, Bracket(0.4, 0.6, 0.5))
    assert result is not None and int((~found[0]).sum()) == 500
    assert result.flips == int((found[0] != mask).sum())


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
@pytest.mark.parametrize("more", [{}, {"threshold": 0.5}], ids=["bracket", "threshold"])
def test_nan_is_refused_and_nothing_is_written(nan, more):
    scores, mask = torch.linspace(0, 1, 100), torch.ones(100, dtype=torch.bool)
    scores[7] = nan
    with pytest.raises(FloatingPointError, match="a score is NaN"):
        sweep_([mask], Ranking([standing(scores)], 60, warm=Bracket(0.4, 0.7, 0.5), **more))
    assert mask.all()


def test_what_takes_more_than_a_sweep(monkeypatch):
    scores, masks = [torch.rand(100)], [torch.ones(100, dtype=torch.bool)]
    warm = Bracket(0.0, 1.0, 0.5)
    assert swept(scores, masks, 50, None)[1] is None
    assert swept(scores, masks, 50, Bracket(math.nan, math.nan, math.nan))[1] is None
    assert swept(scores, masks, 50, Bracket(2.0, 3.0, 2.5))[1] is None
    assert swept(scores, masks, 0, warm)[1] is None
    assert swept(scores, masks, 50, warm)[1] is not None
    monkeypatch.setattr(sweep, "LIMIT", 99)
    assert swept(scores, masks, 50, warm)[1] is None


def test_scores_that_are_computed_are_read_by_one_thread(monkeypatch):
    monkeypatch.setattr(sweep, "CHUNK", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    used: list[int] = []
    pool = ThreadPoolExecutor(4)
    monkeypatch.setattr(sweep, "_pool", lambda: used.append(1) or pool)
    scores, warm = torch.rand(100), Bracket(0.0, 1.0, 0.5)
    sweep_([torch.ones(100, dtype=torch.bool)], Ranking([stored(scores)], 50, warm=warm))
    assert not used
    sweep_([torch.ones(100, dtype=torch.bool)], Ranking([standing(scores)], 50, warm=warm))
    assert len(used) == 3
    pool.shutdown()
