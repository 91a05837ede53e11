"""How a decision reaches the weights."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.progress import progress
from sentei.parts.masks import Mask, Project, StraightThrough


def example(dtype=torch.float32):
    weight = torch.arange(1.0, 13.0, dtype=dtype).view(3, 4)
    keep = torch.arange(12).view(3, 4) % 3 != 0
    return weight, keep, torch.where(keep, weight, 0)


@pytest.mark.parametrize(
    ("hold", "held"),
    [(True, [True] * 4), (False, [False] * 4), ("cooldown", [False, False, False, True])],
)
def test_project(hold, held):
    mask = Project(hold=hold)
    assert [mask.holds(progress(ramp=ramp)) for ramp in (-0.1, 0.5, 1.0, 1.01)] == held
    weight, keep, expected = example()
    mask.write_(weight, weight, keep, {})
    assert torch.equal(weight, expected)


DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
)


@DTYPES
def test_latent_writes_what_is_kept_and_keeps_the_rest(dtype):
    latent, keep, expected = example(dtype)
    latent[0, 0] = -5.0  # pruned: +0.0 is written, so that bits and counts agree
    weight, before = torch.full_like(latent, 9.0), latent.clone()
    StraightThrough().write_(weight, latent, keep, {})
    assert torch.equal(weight, expected) and torch.equal(latent, before)
    assert not torch.signbit(weight).any()


@DTYPES
def test_latent_gradients(dtype):
    gradient = torch.tensor([1.0, -2.0, 3.0], dtype=dtype)
    latent = torch.tensor([0.5, 0.5, -4.0], dtype=dtype)
    score, keep = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([True, False, True])
    out = torch.empty(3)
    memory = {"score": score}
    StraightThrough().score_gradient_(out, gradient, latent, memory, False)
    assert out.tolist() == [0.5, -1.0, -12.0]
    StraightThrough(surrogate="sigmoid").score_gradient_(out, gradient, latent, memory, False)
    slope = math.exp(2) / (1 + math.exp(2)) ** 2
    assert out.tolist() == pytest.approx([0.125, -slope, -12 * slope], rel=1e-6)
    StraightThrough().weight_gradient_(gradient, keep, memory, False)
    assert gradient.tolist() == [1.0, 0.0, 3.0]


def test_by_kind():
    assert Mask.model_validate({"kind": "project", "hold": True}) == Project(hold=True)
    assert Mask.model_validate("project") == Project()
    assert Mask.model_validate("straight_through") == StraightThrough()
