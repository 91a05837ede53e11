"""Scores on single pieces: signals, windows, and what they remember."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from helpers.progress import progress
from helpers.scores import observe
from sentei.parts.learning import Adam
from sentei.parts.scores import (
    Learned,
    Magnitude,
    Score,
    Sensitivity,
    Signal,
    Smoothed,
    SquaredSensitivity,
)

WEIGHT = torch.tensor([1.0, -2.0, 0.0, -0.0, 1e-30])
GRADIENT = torch.tensor([-3.0, 0.5, 4.0, 0.0, 1e-5])
SIGNAL = torch.tensor([3.0, 1.0, 0.0, 0.0, 1e-35])


def test_signals():
    out = torch.empty(5)
    assert Sensitivity().measure_(out, WEIGHT, GRADIENT) is out
    assert_close(out, SIGNAL, rtol=1e-6, atol=0)
    assert_close(SquaredSensitivity().measure_(out, WEIGHT, GRADIENT), SIGNAL**2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_signals_of_half_precision_are_float32(dtype):
    """The product of these two underflows in half precision."""
    weight, gradient = (torch.full((3,), 2.0**-14, dtype=dtype) for _ in range(2))
    out = Sensitivity().measure_(torch.empty(3), weight, -gradient)
    assert out.tolist() == [2.0**-28] * 3
    assert Magnitude().value({}, weight, torch.empty(3)).tolist() == [2.0**-14] * 3


def test_magnitude():
    out = torch.empty(5)
    assert Magnitude().value({}, WEIGHT, out) is out
    assert out.tolist() == WEIGHT.abs().tolist()
    assert not Magnitude().observes and Magnitude().changes_at(7)
    Magnitude().check(1)


def test_a_window_of_one_is_the_moving_average_of_the_step_before():
    memory = observe(Smoothed(window=1, beta=0.5), [1.0, 3.0, 2.0])
    assert memory == {"window": 2.0, "importance": 0.5 * (0.5 * 1.0) + 0.5 * 3.0}


def test_beta_zero_is_the_mean_of_the_last_window():
    memory = observe(Smoothed(window=3, beta=0.0), [9.0, 9.0, 1.0, 2.0, 6.0, 7.0])
    assert memory["importance"] == pytest.approx(3.0)
    assert memory["window"] == 7.0


def test_windows_stand_still_between_their_multiples():
    score = Smoothed(window=3)
    assert [step for step in range(1, 10) if score.changes_at(step)] == [3, 6, 9]
    at_six = observe(score, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    at_eight = observe(score, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0, 80.0])
    assert at_six["importance"] == at_eight["importance"]
    assert at_eight["window"] == pytest.approx((6.0 + 70.0 + 80.0) / 3)


def test_a_smoothed_score_is_a_copy_of_its_importance():
    memory, out = {name: torch.rand(4) for name in Smoothed.memory}, torch.empty(4)
    assert torch.equal(Smoothed().value(memory, torch.ones(4), out), memory["importance"])
    assert out.data_ptr() != memory["importance"].data_ptr()


@pytest.mark.parametrize(("window", "needed"), [(1, 2), (2, 2), (10, 10)])
def test_the_first_decision_needs_a_whole_window(window, needed):
    Smoothed(window=window).check(needed)
    with pytest.raises(ValueError, match=rf"score\.window={window}: .* at step {needed - 1}"):
        Smoothed(window=window).check(needed - 1)


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_iterate_says_when_to_observe(iterate):
    assert Smoothed(iterate=iterate).observes_new == (iterate == "new")


def test_learned_scores_start_at_their_initial_value_and_go_against_the_gradient():
    score = Learned(initial=2.5, optimizer=Adam(lr=0.1, warmup=0, decay="none"))
    memory = {name: torch.zeros(3) for name in score.memory}
    score.start_(memory, torch.rand(3), 0)
    out = torch.empty(3)
    assert score.value(memory, torch.rand(3), out).tolist() == [2.5] * 3
    score.learn_(memory, torch.tensor([4.0, -1e-3, 0.0]), progress(step=1, total=9))
    assert memory["score"].tolist() == pytest.approx([2.4, 2.6, 2.5], abs=1e-5)
    assert memory["exp_avg"].tolist() == pytest.approx([0.4, -1e-4, 0.0])
    assert score.learned and score.changes_at(3) and not score.observes


def test_kinds():
    assert set(Score.kinds()) >= {"magnitude", "smoothed", "learned"}
    assert set(Signal.kinds()) >= {"sensitivity", "squared_sensitivity"}
    squared = Score.model_validate({"kind": "smoothed", "signal": "squared_sensitivity"})
    assert squared == Smoothed(signal=SquaredSensitivity())
