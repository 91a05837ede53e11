"""Counts and histograms: every entry is somewhere, once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sentei
from helpers.pruning import MAGNITUDE
from helpers.scores import stored
from sentei.pruning.summary import BINS, histograms
from sentei.testing import Training

VALUES = st.one_of(
    st.just(0.0), st.floats(0, 2.0**100, width=32), st.floats(0, 2.0**-100, width=32)
)


@given(
    st.lists(st.tuples(VALUES, st.booleans(), st.floats(-5, 5, width=32)), min_size=1, max_size=60),
    st.integers(0, 60),
)
def test_everything_is_counted_once(entries, cut):
    cut = min(cut, len(entries))
    scores, keep, weights = (torch.tensor(column) for column in zip(*entries, strict=True))
    by_weight, by_score = histograms(
        [weights[:cut], weights[cut:]],
        [keep[:cut], keep[cut:]],
        [stored(scores[:cut]), stored(scores[cut:])],
    )
    assert (sum(by_weight.kept), sum(by_weight.pruned)) == (int(keep.sum()), int((~keep).sum()))
    assert by_weight.zeros == 0 and not by_weight.log10
    assert by_score.zeros == int((scores == 0).sum())
    assert sum(by_score.kept) == int((keep & (scores > 0)).sum())
    assert sum(by_score.pruned) == int((~keep & (scores > 0)).sum())
    assert by_score.log10 and len(by_score.edges) == len(by_score.kept) + 1 == BINS + 1
    for histogram in (by_weight, by_score):
        assert list(histogram.edges) == sorted(set(histogram.edges))


def test_values_fall_into_their_bins():
    weights = torch.tensor([-1.0, 1.0, 0.0, 0.0])  # reach 4 sqrt(1/2): bins of width 0.094
    keep = torch.tensor([True, True, False, True])
    scores = torch.tensor([1e-3, 1.1e-2, 0.0, 1e-1])
    by_weight, by_score = histograms([weights], [keep], [stored(scores)])
    assert by_weight.edges[-1] == -by_weight.edges[0] == 4 * 0.5**0.5
    assert {i: n for i, n in enumerate(by_weight.kept) if n} == {19: 1, 30: 1, 40: 1}
    assert {i: n for i, n in enumerate(by_weight.pruned) if n} == {30: 1}
    assert {i: n for i, n in enumerate(by_score.kept) if n} == {0: 1, 31: 1, 59: 1}
    assert (sum(by_score.pruned), by_score.zeros) == (0, 1)


def test_weights_beyond_the_reach_are_in_the_outermost_bins():
    weights = torch.zeros(10_000)
    weights[:2] = torch.tensor([-7.0, 9.0])
    histogram, _ = histograms([weights], [weights != 0], [stored(weights.abs())])
    assert histogram.edges[-1] < 7
    assert (histogram.kept[0], histogram.kept[-1], sum(histogram.kept)) == (1, 1, 2)


def test_half_precision():
    weights = torch.linspace(-1, 1, 101).bfloat16()
    histogram, _ = histograms([weights], [weights > 0], [stored(weights.float().abs())])
    kept = int((weights > 0).sum())
    assert (sum(histogram.kept), sum(histogram.pruned)) == (kept, 101 - kept)


def test_report_is_measured():
    training = Training(MAGNITUDE).run()
    report = training.finish()
    model = training.model
    assert report.zeros == sum(int((p == 0).sum()) for p in model.parameters())
    assert report.parameters == sum(p.numel() for p in model.parameters())
    for site in report.sites:
        weight = model.get_parameter(site.name)
        assert (site.pruned, site.weights) == (int((weight == 0).sum()), weight.numel())
    assert [u.step for u in report.updates] == sorted({u.step for u in report.updates})
    assert sum(report.weight_histogram.kept) == report.prunable - report.pruned


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_finish_refuses_weights_that_are_not_finite(value):
    training = Training(sentei.magnitude(0.5, every=2)).run()
    weight = training.model.blocks[3].weight
    weight.data[weight != 0] = value
    with pytest.raises(FloatingPointError, match=r"blocks\.3\.weight holds NaN or infinite"):
        training.finish()
