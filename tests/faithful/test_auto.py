"""auto is PLATON but for what its card names."""

from __future__ import annotations

import pytest

import sentei
from sentei.parts import LeastSquares


def test_it_is_platon_but_for_its_ramp_dropout_least_squares_and_a_teacher_if_there_is_one():
    recipe = sentei.auto(0.9)
    without = ["method=platon", "dropout=1", "distill=null", "reconstruction=null"]
    ramp = ["schedule.warmup=0.1", "schedule.cooldown=0.4"]
    assert sentei.override(recipe, [*without, *ramp]) == sentei.platon(0.9)
    assert (recipe.schedule.warmup, recipe.schedule.cooldown) == (0.05, 0.5)
    assert (
        recipe.reconstruction == LeastSquares(tolerance=0)
        and recipe.dropout == 0
        and recipe.distill is not None
    )
    assert not recipe.distill.required and recipe.distill.regression == "alone"


def test_its_numbers_are_checked_as_any_recipes():
    with pytest.raises(ValueError, match="dropout"):
        sentei.auto(0.9, dropout=1.5)
