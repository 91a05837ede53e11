"""Reweighted proximal pruning: its operator by hand, and where it acts."""

from __future__ import annotations

import pytest
import torch

import sentei
from sentei.methods.proximal import ReweightedL1
from sentei.parts.progress import Progress
from sentei.testing import Training

NOW = Progress(step=1, total=10, sparsity=0.0, final=0.5, reached=0.0, ramp=0.0)


def shrunk(weights, *, lr, coefficient, epsilon, dtype=torch.float64):
    weight = torch.tensor(weights, dtype=dtype)
    scratch = torch.empty(len(weights), dtype=dtype)
    part = ReweightedL1(coefficient=coefficient, epsilon=epsilon)
    part.shrink_(weight, lr, NOW, scratch)
    return weight.tolist()


def test_operator_by_hand():
    # lr c = 0.05. At |w| = 0.4: 0.05 / 0.5 = 0.1. At 0.9: 0.05. At 0.15: 0.2, more than there is.
    found = shrunk([0.4, -0.4, 0.9, 0.15, 0.0], lr=0.1, coefficient=0.5, epsilon=0.1)
    assert found == pytest.approx([0.3, -0.3, 0.85, 0.0, 0.0], abs=1e-15)
    # The least that survives: |w| (|w| + 0.1) = 0.05.
    root = (-0.1 + (0.01 + 0.2) ** 0.5) / 2
    gone, left = shrunk([root - 1e-6, root + 1e-6], lr=0.1, coefficient=0.5, epsilon=0.1)
    assert gone == 0 and 0 < left < 1e-5


def test_it_solves_the_proximal_problem():
    """argmin over x of (x - w)^2 / 2 + lr c |x| / (|w| + epsilon), searched on a grid."""
    x = torch.linspace(-1, 1, 2_000_001, dtype=torch.float64)
    for w in (-0.7, -0.2, 0.05, 0.33, 0.99):
        objective = (x - w) ** 2 / 2 + 0.2 * 0.3 * x.abs() / (abs(w) + 0.05)
        best = x[objective.argmin()].item()
        found = shrunk([w], lr=0.2, coefficient=0.3, epsilon=0.05)
        assert found == pytest.approx([best], abs=2e-6)


def test_without_penalty_it_is_magnitude_pruning():
    numbers = {"every": 4, "warmup": 0.1, "cooldown": 0.4}
    runs = [
        Training(recipe).run()
        for recipe in (
            sentei.proximal(0.7, coefficient=0.0, **numbers),
            sentei.magnitude(0.7, **numbers),
            sentei.proximal(0.7, coefficient=0.5, **numbers),
        )
    ]
    proximal, magnitude, shrinking = (run.weights() for run in runs)
    assert all(torch.equal(proximal[name], magnitude[name]) for name in magnitude)
    assert not torch.equal(shrinking["blocks.0.weight"], magnitude["blocks.0.weight"])


def test_it_shrinks_after_the_step_by_the_learning_rate_of_its_group_and_moment():
    run = Training(None, dtype=torch.float64, steps=40)
    other = Training(None, dtype=torch.float64, steps=40)
    for training in (run, other):
        parameters = list(training.model.parameters())
        half = len(parameters) // 2
        training.optimizer = torch.optim.SGD(
            [{"params": parameters[:half], "lr": 0.1}, {"params": parameters[half:], "lr": 0.02}]
        )
    recipe = sentei.proximal(0.2, coefficient=0.01, epsilon=0.1, warmup=0.9, cooldown=0, every=1)
    run.pruner = sentei.Pruner(run.model, recipe, total_steps=40)
    run.pruner.attach(run.optimizer)
    for t in range(20):
        for training in (run, other):
            for group, rate in zip(training.optimizer.param_groups, (0.1, 0.02), strict=True):
                group["lr"] = rate * (1 - t / 40)
            training.step()
        for group in other.optimizer.param_groups:
            for p in group["params"]:
                if any(p is block.weight for block in other.model.blocks):
                    size = p.data.abs()
                    size = (size - group["lr"] * 0.01 / (size + 0.1)).clamp(min=0)
                    p.data = p.data.sign() * size
        for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    rates = {group["lr"] for group in run.optimizer.param_groups}
    assert len(rates) == 2
