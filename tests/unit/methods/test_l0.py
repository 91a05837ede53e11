"""Hard concrete gates and the penalty on how many of them are open."""

from __future__ import annotations

import math

import pytest
import torch

import sentei
from helpers.progress import BEHIND, progress
from sentei.methods.l0 import ExpectedL0, HardConcrete
from sentei.parts.masks import Mask
from sentei.parts.penalties import Penalty


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


def test_a_fixed_count_opens_to_a_tenth_what_it_keeps_and_was_shut():
    score = torch.tensor([-9.0, -9.0, 9.0, 0.0], dtype=torch.float64)
    keep = torch.tensor([True, False, False, True])
    HardConcrete().settle_(keep, {"score": score})
    assert 1.2 * torch.sigmoid(score[0]).item() - 0.1 == pytest.approx(0.1)
    assert score[1:].tolist() == [-9.0, 9.0, 0.0]
    assert HardConcrete().samples(settled=False) and not HardConcrete().samples(settled=True)


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


@BEHIND
def test_a_penalty_that_follows_is_as_strong_as_the_sparsity_is_behind(reached, follow, share):
    gated = ExpectedL0(coefficient=8.0, follow=follow)
    assert gated.strength(progress(reached=reached)) == pytest.approx(8.0 * share)


def test_by_kind():
    assert Mask.model_validate({"kind": "hard_concrete", "seed": 3}) == HardConcrete(seed=3)


def test_kinds():
    assert "hard_concrete" in Mask.kinds() and "expected_l0" in Penalty.kinds()


def test_a_pattern_that_opens_what_its_log_odds_shut_is_refused():
    with pytest.raises(
        ValueError, match=r"pattern neuron\+2:4 keeps the best of every few, open or shut"
    ):
        sentei.l0(0.5, pattern="neuron+2:4")
