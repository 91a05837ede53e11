"""What is read before and after a step, what it costs, and what cannot be read."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

import sentei
from helpers.pruning import LATENT, MAGNITUDE, step
from helpers.recipes import recipe_of
from sentei.methods.leap import ExcessRatio
from sentei.parts.budget import Global
from sentei.parts.masks import StraightThrough
from sentei.parts.site import Site
from sentei.pruning.observe import gradient_of, reads_gradient, shrinks
from sentei.testing import STEPS, Training


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_missing_gradient(iterate):
    training = Training(sentei.platon(0.7, window=2, every=2, iterate=iterate))
    loss = training.model.output(training.model.input(training.inputs[0])).mean()
    with pytest.raises(ValueError, match=r"blocks\.0\.weight has no gradient at step 1"):
        step(training, loss)


def test_magnitude_needs_no_gradient():
    training = Training(MAGNITUDE)
    for _ in range(STEPS):
        step(training, training.model.input(training.inputs[0]).mean())
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)


@pytest.mark.parametrize(
    ("recipe", "reads", "moves"),
    [
        (MAGNITUDE, False, False),
        (sentei.random(0.5), False, False),
        (sentei.platon(0.5), False, False),
        (sentei.platon(0.5, iterate="old"), True, False),
        (sentei.mgpp(0.5), True, False),
        (sentei.proximal(0.5), False, True),
        *((recipe, True, False) for recipe in LATENT.values()),
    ],
    ids=lambda value: getattr(value, "method", value),
)
def test_only_what_needs_gradients_before_the_step_reads_them(recipe, reads, moves):
    assert (reads_gradient(recipe), shrinks(recipe)) == (reads, moves)


def test_a_gradient_is_the_parameters_own_and_contiguous():
    """Penalties and latent masks write to it through a flat view."""
    parameter = nn.Parameter(torch.zeros(2, 3))
    site = Site("weight", parameter, None, "x")
    parameter.grad = torch.arange(6.0).view(2, 3)
    assert gradient_of(site, 1) is parameter.grad
    parameter.grad = torch.arange(6.0).view(3, 2).t()
    gradient = gradient_of(site, 1)
    assert gradient is parameter.grad and gradient.is_contiguous()
    assert gradient.tolist() == [[0, 2, 4], [1, 3, 5]]


class Shy(Global):
    """Somebody else's budget: it learns, and has no ratio to show."""

    kind: Literal["unit_shy"] = "unit_shy"
    learned: ClassVar[bool] = True


def test_a_penalty_on_ratios_needs_a_budget_that_has_some():
    parts = {"budget": Shy(), "mask": StraightThrough(), "penalties": (ExcessRatio(),)}
    message = "penalty excess_ratio is on kept ratios, and budget unit_shy learns none: use budget"
    with pytest.raises(ValueError, match=message):
        Training(recipe_of(**parts)).step()
