"""LEAP's learned ratios and the penalty that leads them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sentei
from helpers.progress import progress
from sentei.methods.leap import ExcessRatio, LearnedRatio
from sentei.parts.budget import Budget
from sentei.parts.learning import Adam
from sentei.parts.penalties import Penalty


@pytest.mark.parametrize(
    ("settle", "first"), [(None, None), (0.0, 100), (0.1, 90), (0.25, 75), (1.0, 0)]
)
def test_the_count_settles_in_the_last_part_of_training(settle, first):
    budget = LearnedRatio(settle=settle)
    settled = [step for step in range(101) if budget.settled(progress(step=step))]
    assert settled == ([] if first is None else list(range(first, 101)))


def ratio_state(budget, logits, total=100):
    state = budget.start([1] * len(logits), total, 0.5)
    state["sigma"].copy_(torch.tensor(logits, dtype=torch.float64) * state["temperature"])
    return state


def logit(k):
    return math.log(k / (1 - k))


@pytest.mark.parametrize("temperature", [None, 1.0, 32.0])
def test_learned_ratios_keep_the_ceiling(temperature):
    budget = LearnedRatio(temperature=temperature, settle=None)
    state = ratio_state(budget, [logit(0.25), logit(0.501), logit(1e-9), 40.0])
    assert budget.ratios(state).tolist() == pytest.approx([0.25, 0.501, 1e-9, 1.0], abs=1e-10)
    quotas = budget.split([101, 100, 100, 100], progress(0.9), state)
    assert [quota.places for quota in quotas] == [(0,), (1,), (2,), (3,)]
    assert [quota.count for quota in quotas] == [101 - 26, 100 - 51, 99, 0]


@given(
    sites=st.lists(st.tuples(st.integers(1, 100_000), st.floats(-30, 30)), min_size=1, max_size=12),
    sparsity=st.floats(0.001, 0.999),
)
def test_settled_ratios_meet_the_count_and_keep_their_order(sites, sparsity):
    sizes, logits = [list(column) for column in zip(*sites, strict=True)]
    budget = LearnedRatio(settle=0.1)
    quotas = budget.split(sizes, progress(sparsity, step=95), ratio_state(budget, logits))
    assert sum(quota.count for quota in quotas) == round(sum(sizes) * sparsity)
    assert all(0 <= quota.count <= n for quota, n in zip(quotas, sizes, strict=True))
    by_ratio = sorted(zip(logits, quotas, sizes, strict=True), key=lambda site: site[0])
    pruned = [quota.count / size for _, quota, size in by_ratio]
    slack = [1 / size for _, _, size in by_ratio]
    for i in range(len(pruned) - 1):
        assert pruned[i] >= pruned[i + 1] - slack[i] - slack[i + 1]


def test_settled_ratios_by_hand():
    """Ratios .5 and .8 have odds 1 and 4. Keeping 70 of 200: odds x d, with d / (1 + d) +
    4 d / (1 + 4 d) = .7, so 8 d^2 + 5 d = .7 (1 + 5 d + 4 d^2) and d = (-1.5 + root) / 10.4."""
    budget = LearnedRatio(settle=0.1)
    state = ratio_state(budget, [logit(0.5), logit(0.8)])
    d = (-1.5 + math.sqrt(1.5**2 + 4 * 5.2 * 0.7)) / 10.4
    kept = [100 * d / (1 + d), 400 * d / (1 + 4 * d)]
    assert sum(kept) == pytest.approx(70)
    quotas = budget.split([100, 100], progress(0.65, step=95), state)
    assert [100 - quota.count for quota in quotas] == [round(k) for k in kept]


@pytest.mark.parametrize("total", [40, 1000])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("travel", "warmup"), [(0.5, 0.1), (0.25, 0.0), (1.0, 0.2)])
def test_the_chosen_temperature_leads_to_the_target_in_time(total, sparsity, travel, warmup):
    """A push of any one size and direction, by torch's own Adam and a linear schedule."""
    budget = LearnedRatio(travel=travel, optimizer=Adam(lr=1e-2, warmup=warmup))
    state = budget.start([10, 20], total, sparsity)
    sigma = torch.nn.Parameter(state["sigma"].clone())
    adam = torch.optim.Adam([sigma], lr=1e-2)
    warm = round(warmup * total)
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda t: t / warm if t < warm else (total - t) / (total - warm)
    )
    for _ in range(round(travel * total)):
        sigma.grad = torch.full_like(sigma, 1e3)
        adam.step()
        rate.step()
    ratios = torch.sigmoid(sigma.detach() / state["temperature"]).tolist()
    assert ratios == pytest.approx([1 - sparsity] * 2, rel=1e-6)


def test_learning_sigma_by_hand():
    """One step of Adam goes by the sign: of the mask's sum and the penalty through the sigmoid."""
    budget = LearnedRatio(
        temperature=2.0, initial=0.0, optimizer=Adam(lr=0.1, warmup=0, decay="none")
    )
    state = budget.start([10, 20, 30], 100, 0.5)
    mask = torch.tensor([1.0, 1.0, -0.2], dtype=torch.float64)
    ratio = torch.tensor([0.0, -16.0, 0.8], dtype=torch.float64)
    budget.learn_(state, mask, ratio, progress(0.5, step=1))
    # k (1 - k) / T = 1/8: gradients 1, 1 - 2 and -0.2 + 0.1.
    assert state["sigma_exp_avg"].tolist() == pytest.approx([0.1, -0.1, -0.01])
    assert state["sigma"].tolist() == pytest.approx([-0.1, 0.1, 0.1], abs=1e-7)
    assert budget.ratios(state).tolist() == pytest.approx(
        [1 / (1 + math.exp(x)) for x in (0.05, -0.05, -0.05)], abs=1e-7
    )


def test_a_fixed_count_of_units_of_unlike_sizes_is_of_their_weights():
    budget, late = LearnedRatio(settle=0.1), progress(0.5, step=95)
    assert budget.mixes(late) and not budget.mixes(progress(0.5, step=50))
    # Ratios .21 and .5967 keep 21 + 179 of 400, which is half: no shift. 7.9 and 4.03 units go: 7
    # and 4 are 190, and the one with the larger rest makes it 200.
    state = ratio_state(budget, [logit(0.21), logit(0.5967)])
    counts = [quota.count for quota in budget.split([10, 10], late, state, [10, 30])]
    assert 200 <= 10 * counts[0] + 30 * counts[1] < 230
    assert counts == [8, 4]


def test_a_ratio_below_its_target_feels_nothing():
    sizes = torch.tensor([100.0, 100.0], dtype=torch.float64)
    ratios = torch.tensor([0.9, 0.2], dtype=torch.float64)
    excess = ExcessRatio()
    assert excess.gradient(ratios, sizes, progress(0.45)).tolist() == [0.0, 0.0]
    # R = .55, k = .5: lambda = max(160 .05^2 / .25, 10) = 10; 2 x .05 x 10 / 2 each.
    gradient = excess.gradient(ratios, sizes, progress(0.5)).tolist()
    assert gradient == pytest.approx([0.5, 0.5])


def test_by_kind():
    assert Budget.model_validate({"kind": "learned_ratio", "initial": 3}) == LearnedRatio(initial=3)


def test_kinds():
    assert "learned_ratio" in Budget.kinds() and "excess_ratio" in Penalty.kinds()
    assert Penalty.model_validate("excess_ratio") == ExcessRatio()


def test_a_pattern_that_fixes_how_much_is_kept_leaves_nothing_to_learn():
    with pytest.raises(ValueError, match="pattern 2:4 fixes how much of every matrix is kept"):
        sentei.leap(0.5, pattern="2:4")
