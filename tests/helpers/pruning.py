"""A pruner at work in a short training: recipes for one, and what changes from step to step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sentei
from sentei.parts.masks import StraightThrough
from sentei.pruning.pruner import Pruner
from sentei.recipe import Recipe
from sentei.testing import STEPS, Training

PLATON = sentei.platon(0.7, window=2, every=2)
MAGNITUDE = sentei.magnitude(0.7, every=2)
MOVEMENT = sentei.movement(0.7)
LATENT = {
    "movement": MOVEMENT,
    "soft_movement": sentei.soft_movement(0.7),
    "l0": sentei.l0(0.7),
    "leap": sentei.leap(0.7),
    "leap of magnitudes": sentei.leap(0.7, score="magnitude"),
    "platon": sentei.platon(0.7, window=2, every=2, iterate="old").model_copy(
        update={"mask": StraightThrough()}
    ),
}
"""Recipes that keep the dense weights aside."""

latent = pytest.mark.parametrize("recipe", LATENT.values(), ids=LATENT.keys())
projected = pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE], ids=["platon", "magnitude"])


def same(a: Any, b: Any) -> bool:
    """Equal plain values, and tensors of equal bits and dtype, at any depth."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    equal: bool = a == b
    return equal


def snapshot(pruner: Pruner) -> dict[str, Any]:
    """A copy of its state."""
    return copy.deepcopy(pruner.state_dict())


def unchanged(pruner: Pruner, state: dict[str, Any]) -> bool:
    """Whether its state is still that of a snapshot."""
    return same(pruner.state_dict(), state)


def stopped(recipe: Recipe = PLATON, steps: int = STEPS // 2) -> tuple[Training, dict[str, Any]]:
    """A training after so many steps, and the state of its pruner then."""
    training = Training(recipe).run(steps)
    assert training.pruner is not None
    return training, snapshot(training.pruner)


def step(training: Training, loss: Tensor | None = None) -> None:
    """One step of a training whose loss is not the usual one."""
    loss = training.model(training.inputs[0]).square().mean() if loss is None else loss
    loss.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def closure_of(training: Training) -> Callable[[], Tensor]:
    """The closure that computes the gradients inside the optimizer's step."""

    def closure() -> Tensor:
        training.optimizer.zero_grad()
        loss = nn.functional.mse_loss(training.model(training.inputs[0]), training.targets[0])
        loss.backward()
        return loss

    return closure
