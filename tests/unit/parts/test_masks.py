"""How a decision reaches the weights."""

from __future__ import annotations

import math

import pytest
import torch

from sentei.methods.l0 import HardConcrete
from sentei.parts.masks import Mask, Project, StraightThrough
from sentei.parts.progress import Progress
from sentei.pruning import cut as select
from sentei.tensors import zero_pruned_


def example(dtype=torch.float32):
    weight = torch.arange(1.0, 13.0, dtype=dtype).view(3, 4)
    keep = torch.arange(12).view(3, 4) % 3 != 0
    return weight, keep, torch.where(keep, weight, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [1 << 18, 5])
def test_zeroes_exactly_what_is_pruned(monkeypatch, dtype, chunk):
    monkeypatch.setattr(select, "CHUNK", chunk)
    weight, keep, expected = example(dtype)
    zero_pruned_(weight, keep)
    assert torch.equal(weight, expected)


def test_even_a_weight_that_is_not_finite():
    weight = torch.tensor([float("nan"), float("inf"), float("nan")])
    zero_pruned_(weight, torch.tensor([False, False, True]))
    assert weight[:2].tolist() == [0, 0] and weight[2].isnan()


def at(ramp):
    return Progress(step=1, total=10, sparsity=0.5, final=0.5, reached=0.0, ramp=ramp)


@pytest.mark.parametrize(
    ("hold", "held"),
    [(True, [True] * 4), (False, [False] * 4), ("cooldown", [False, False, False, True])],
)
def test_project(hold, held):
    mask = Project(hold=hold)
    assert [mask.holds(at(ramp)) for ramp in (-0.1, 0.5, 1.0, 1.01)] == held
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


def test_hard_concrete_gates_by_hand():
    """Deterministic: 1.2 sigmoid(S) - 0.1, so 0 up to log(1/11) and 1 from log(11)."""
    score = torch.tensor([0.0, -3.0, 3.0, math.log(3)], dtype=torch.float64)
    latent = torch.tensor([2.0, 2.0, -2.0, 1.0], dtype=torch.float64)
    keep, weight = score > math.log(1 / 11), torch.empty(4, dtype=torch.float64)
    mask = HardConcrete()
    mask.write_(weight, latent, keep, {"score": score})
    assert weight.tolist() == pytest.approx([1.0, 0.0, -2.0, 0.8], abs=1e-12)
    # With log(u / (1 - u)) = log(3) / 1.5 - S the sample's sigmoid is 3 / 4.
    noise = math.log(3) / 1.5 - score
    mask.sample_(weight, latent, keep, {"score": score, "noise": noise})
    assert weight.tolist() == pytest.approx([1.6, 1.6, -1.6, 0.8], abs=1e-12)


def test_what_is_kept_is_no_zero_and_what_is_pruned_is():
    """A budget that fixes the count keeps gates that are shut, and prunes gates that are open."""
    score, latent = torch.tensor([-9.0, 9.0]), torch.tensor([0.5, 0.5])
    weight = torch.empty(2)
    HardConcrete().write_(weight, latent, torch.tensor([True, False]), {"score": score})
    assert 0 < weight[0] < 1e-5 and weight[1] == 0


def test_draws_are_seeded_by_seed_step_and_site():
    def draw(seed, step, number):
        noise = torch.empty(1000, dtype=torch.float64)
        HardConcrete(seed=seed).draw_({"noise": noise}, step, number)
        return noise

    first = draw(1, 2, 3)
    assert torch.equal(first, draw(1, 2, 3))
    others = [draw(0, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(2**32 - 1, 2, 3)]
    assert all(not torch.equal(first, other) for other in others)
    assert first.abs().max() <= math.log((1 - 1e-4) / 1e-4) + 1e-6
    state = torch.random.get_rng_state()
    draw(1, 2, 3)
    assert torch.equal(torch.random.get_rng_state(), state), "the loop's own draws stand"


@pytest.mark.parametrize("wrong", [{"low": 0.1}, {"high": 0.9}, {"temperature": 0}])
def test_a_gate_reaches_beyond_both_ends(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HardConcrete(**wrong)


def test_by_kind():
    assert Mask.model_validate({"kind": "project", "hold": True}) == Project(hold=True)
    assert Mask.model_validate("project") == Project()
    assert Mask.model_validate("straight_through") == StraightThrough()
    assert Mask.model_validate({"kind": "hard_concrete", "seed": 3}) == HardConcrete(seed=3)
