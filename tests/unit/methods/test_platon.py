"""PLATON's score on single pieces: two averages, folded window by window."""

from __future__ import annotations

import pytest
import torch

from helpers.scores import observe
from sentei.methods.platon import Uncertainty
from sentei.parts.scores import Score


def test_windows_stand_still_between_their_multiples():
    score = Uncertainty(window=3)
    assert [step for step in range(1, 10) if score.changes_at(step)] == [3, 6, 9]
    at_six = observe(score, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    at_eight = observe(score, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0, 80.0])
    assert at_six["importance"] == at_eight["importance"]
    assert at_six["uncertainty"] == at_eight["uncertainty"]
    assert at_eight["window"] == pytest.approx((6.0 + 70.0 + 80.0) / 3)


def test_score_is_importance_times_uncertainty():
    memory = {name: torch.rand(4) for name in Uncertainty.memory}
    expected = memory["importance"] * memory["uncertainty"]
    assert torch.equal(Uncertainty().value(memory, torch.ones(4), torch.empty(4)), expected)


@pytest.mark.parametrize(("window", "needed"), [(1, 2), (2, 2), (10, 10)])
def test_the_first_decision_needs_a_whole_window(window, needed):
    Uncertainty(window=window).check(needed)
    with pytest.raises(ValueError, match=rf"score\.window={window}: .* at step {needed - 1}"):
        Uncertainty(window=window).check(needed - 1)


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_iterate_says_when_to_observe(iterate):
    assert Uncertainty(iterate=iterate).observes_new == (iterate == "new")


def test_kinds():
    assert Score.model_validate("uncertainty") == Uncertainty()
