"""Gradients written out by hand, against autograd of the functions they claim to belong to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sentei.methods.l0 import ExpectedL0, HardConcrete
from sentei.methods.leap import ExcessRatio
from sentei.parts.masks import StraightThrough
from sentei.parts.penalties import ScoreL1
from sentei.parts.progress import Progress

SIZE = 4000


def moment(sparsity=0.8, reached=0.0):
    return Progress(step=5, total=100, sparsity=sparsity, final=0.8, reached=reached, ramp=0.5)


def draw(*, scale=1.0, seed=0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator, dtype=torch.float64) * scale


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("surrogate", ["identity", "sigmoid"])
def test_latent(surrogate):
    """The loss g . (latent x gate), with the surrogate for a gate where scores are concerned."""
    mask = StraightThrough(surrogate=surrogate)
    g, latent, score = draw(seed=1), draw(seed=2), draw(seed=3, scale=3.0)
    keep = score > 0.5
    by_score = score.clone().requires_grad_()
    gate = by_score if surrogate == "identity" else torch.sigmoid(by_score)
    (g * latent * gate).sum().backward()
    out = torch.full((SIZE,), 7.0, dtype=torch.float64)
    mask.score_gradient_(out, g, latent, {"score": score}, False)
    same(out, by_score.grad)
    by_weight = latent.clone().requires_grad_()
    (g * by_weight * keep).sum().backward()
    gradient = g.clone()
    mask.weight_gradient_(gradient, keep, {"score": score}, False)
    assert torch.equal(gradient, by_weight.grad)


@pytest.mark.parametrize("sampled", [True, False])
def test_hard_concrete(sampled):
    mask = HardConcrete()
    g, latent, score = draw(seed=1), draw(seed=2), draw(seed=3, scale=3.0)
    noise = torch.logit(torch.rand(SIZE, dtype=torch.float64, generator=torch.manual_seed(0)))
    by_score, by_weight = score.clone().requires_grad_(), latent.clone().requires_grad_()
    logits = (by_score + noise) / (2 / 3) if sampled else by_score
    gate = torch.clamp(torch.sigmoid(logits) * 1.2 - 0.1, 0.0, 1.0)
    (g * by_weight * gate).sum().backward()
    shut, wide = (int((gate == end).sum()) for end in (0, 1))
    assert shut > 100 and wide > 100 and shut + wide < SIZE - 100
    out, gradient = torch.empty_like(g), g.clone()
    memory = {"score": score, "noise": noise}
    mask.score_gradient_(out, g, latent, memory, sampled)
    mask.weight_gradient_(gradient, gate > 0, memory, sampled)
    same(out, by_score.grad)
    same(gradient, by_weight.grad)


@pytest.mark.parametrize("ends", [(-0.1, 1.1, 2 / 3), (-0.3, 1.5, 0.4)])
def test_expected_l0(ends):
    """P(gate > 0) of a stretched logistic variable, by its formula and by drawing."""
    low, high, temperature = ends
    penalty = ExpectedL0(coefficient=3.0, low=low, high=high, temperature=temperature)
    score = draw(scale=2.0)
    by_score = score.clone().requires_grad_()
    shift = temperature * torch.tensor(-low / high, dtype=torch.float64).log()
    opened = torch.sigmoid(by_score - shift)
    (3.0 * opened.mean() / 4).backward()
    gradient = torch.ones_like(score)
    penalty.add_(gradient, score, 1 / (4 * SIZE), moment())
    same(gradient - 1, by_score.grad)
    mask = HardConcrete(low=low, high=high, temperature=temperature)
    noise, weight, one = torch.empty(SIZE, dtype=torch.float64), draw(), torch.ones(SIZE).double()
    drawn = []
    for step in range(50):
        mask.draw_({"noise": noise}, step, 0)
        mask.sample_(weight, one, one.bool(), {"score": score, "noise": noise})
        drawn.append((weight > 0).double().mean().item())
    assert sum(drawn) / 50 == pytest.approx(opened.mean().item(), abs=5e-3)


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.8])
def test_score_l1(sparsity):
    penalty = ScoreL1(coefficient=400.0, follow=False)
    score = draw(scale=2.0)
    by_score = score.clone().requires_grad_()
    (400.0 * sparsity / 0.8 * torch.sigmoid(by_score).mean() / 3).backward()
    gradient = torch.zeros_like(score)
    penalty.add_(gradient, score, 1 / (3 * SIZE), moment(sparsity))
    same(gradient, by_score.grad)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("kept", [0.995, 0.5, 0.215, 0.1])
def test_excess_ratio(form, kept):
    numbers = {"maximum": 20_000.0, "minimum": 50.0} if form == "code" else {}
    penalty = ExcessRatio(form=form, **numbers)
    sizes = torch.tensor([100.0, 300.0, 600.0], dtype=torch.float64)
    spread = torch.tensor([0.004, -0.002, 0.001], dtype=torch.float64)
    ratios = (kept + spread).requires_grad_()
    excess = (ratios * sizes).sum() / sizes.sum() - 0.2
    loss = excess**2 if excess > 0 else 0 * excess
    maximum, minimum = (20_000.0, 50.0) if form == "code" else (160.0, 10.0)
    strength = max(maximum * loss.item() / 0.64, minimum)
    if form == "code" and loss.item() < 3e-4:
        strength = 10.0
    (strength * loss).backward()
    found = penalty.gradient(ratios.detach(), sizes, moment(0.8))
    same(found, ratios.grad)
    assert bool(found.any()) == (kept > 0.2)
