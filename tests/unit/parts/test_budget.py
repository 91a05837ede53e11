"""Budgets: counts that add up exactly, whatever the sizes."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sentei
from sentei.methods.leap import LearnedRatio
from sentei.parts.budget import AcrossSizes, Budget, Global, Quota, Threshold, Uniform
from sentei.parts.learning import Adam
from sentei.parts.progress import Progress

SIZES = st.lists(st.integers(1, 3_000_000), min_size=1, max_size=40)
SPARSITY = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.5, 0.9, 0.1, 1 / 3]))
BUDGETS = pytest.mark.parametrize("budget", [Global(), Uniform(), Global(compat=True)])


def moment(sparsity, *, step=50, total=100, final=0.8):
    return Progress(step=step, total=total, sparsity=sparsity, final=final, reached=0.0, ramp=0.5)


def split(budget, sizes, sparsity):
    return budget.split(sizes, moment(sparsity), {})


@BUDGETS
@given(sizes=SIZES, sparsity=SPARSITY)
def test_counts_add_up_exactly(budget, sizes, sparsity):
    groups = split(budget, sizes, sparsity)
    assert sorted(i for group in groups for i in group.places) == list(range(len(sizes)))
    wanted = sum(sizes) * sparsity
    whole = int(wanted) if isinstance(budget, Global) and budget.compat else round(wanted)
    assert sum(group.count for group in groups) == whole
    assert all(0 <= g.count <= sum(sizes[i] for i in g.places) for g in groups)


@BUDGETS
@given(sizes=SIZES, ends=st.tuples(SPARSITY, SPARSITY).map(sorted))
def test_more_sparsity_never_prunes_less(budget, sizes, ends):
    fewer, more = (sum(g.count for g in split(budget, sizes, s)) for s in ends)
    assert fewer <= more


@BUDGETS
@given(sizes=SIZES)
def test_ends(budget, sizes):
    assert all(group.count == 0 for group in split(budget, sizes, 0.0))
    almost_all = split(budget, sizes, 1 - 2**-53)
    assert sum(group.count for group in almost_all) >= sum(sizes) - 1


@given(sizes=SIZES, sparsity=SPARSITY)
def test_uniform_is_within_one_weight_of_the_same_sparsity_everywhere(sizes, sparsity):
    groups = split(Uniform(), sizes, sparsity)
    assert [group.places for group in groups] == [(i,) for i in range(len(sizes))]
    for group, size in zip(groups, sizes, strict=True):
        assert abs(group.count - Fraction(sparsity) * size) < 1 + 1e-6


def test_uniform_by_hand():
    # 2.25, 1.5 and 3.75 make 7.5, which rounds to 8: two to give, to .75 and to .5.
    assert [group.count for group in split(Uniform(), [9, 6, 15], 0.25)] == [2, 2, 4]
    # Equal fractions: the earlier sites get them.
    assert [group.count for group in split(Uniform(), [5, 5, 5, 5], 0.5)] == [3, 3, 2, 2]


def test_only_the_authors_count_is_strict():
    assert [g.strict for g in split(Global(compat=True), [10], 0.55)] == [True]
    assert [g.count for g in split(Global(compat=True), [10], 0.55)] == [5]
    assert [(g.count, g.strict) for g in split(Global(), [10], 0.55)] == [(6, False)]


@pytest.mark.parametrize("budget", [Global(), Uniform()])
def test_counts_that_are_given_are_settled_from_the_start(budget):
    assert budget.settled(moment(0.1, step=1)) and budget.start([3], 100, 0.5) == {}


# Counts that come out of training.


@pytest.mark.parametrize("budget", [Threshold, LearnedRatio])
@pytest.mark.parametrize(
    ("settle", "first"), [(None, None), (0.0, 100), (0.1, 90), (0.25, 75), (1.0, 0)]
)
def test_the_count_settles_in_the_last_part_of_training(budget, settle, first):
    part = budget(settle=settle)
    settled = [step for step in range(101) if part.settled(moment(0.5, step=step))]
    assert settled == ([] if first is None else list(range(first, 101)))


def test_threshold_rises_with_the_schedule():
    part, now = Threshold(final=0.2, settle=None), moment(0.4, final=0.8)
    (one, two) = part.split([1000, 100], now, {})
    # Half the way: sigmoid(score) <= 0.1 is pruned; 0.5 % and one more are kept.
    assert one.threshold == two.threshold == pytest.approx(math.log(0.1 / 0.9))
    assert [(g.places, g.count) for g in (one, two)] == [((0,), 1000 - 6), ((1,), 100 - 1)]
    assert [g.threshold for g in part.split([9], moment(0.0), {})] == [-math.inf]
    raw = Threshold(final=0.2, sigmoid=False, settle=None)
    assert [g.threshold for g in raw.split([9], now, {})] == [pytest.approx(0.1)]
    fixed = Threshold(final=0.2, rises=False, sigmoid=False, least=0.0, settle=None)
    assert fixed.split([9], moment(0.0), {}) == (Quota((0,), 8, threshold=0.2),)


def test_threshold_settles_to_one_exact_count():
    part = Threshold(settle=0.1)
    assert part.split([7, 8], moment(0.5, step=95), {}) == (Quota((0, 1), 8),)


def ratio_state(part, logits, total=100):
    state = part.start([1] * len(logits), total, 0.5)
    state["sigma"].copy_(torch.tensor(logits, dtype=torch.float64) * state["temperature"])
    return state


def logit(k):
    return math.log(k / (1 - k))


@pytest.mark.parametrize("temperature", [None, 1.0, 32.0])
def test_learned_ratios_keep_the_ceiling(temperature):
    part = LearnedRatio(temperature=temperature, settle=None)
    state = ratio_state(part, [logit(0.25), logit(0.501), logit(1e-9), 40.0])
    assert part.ratios(state).tolist() == pytest.approx([0.25, 0.501, 1e-9, 1.0], abs=1e-10)
    groups = part.split([101, 100, 100, 100], moment(0.9), state)
    assert [group.places for group in groups] == [(0,), (1,), (2,), (3,)]
    assert [group.count for group in groups] == [101 - 26, 100 - 51, 99, 0]


@given(
    sites=st.lists(st.tuples(st.integers(1, 100_000), st.floats(-30, 30)), min_size=1, max_size=12),
    sparsity=st.floats(0.001, 0.999),
)
def test_settled_ratios_meet_the_count_and_keep_their_order(sites, sparsity):
    sizes, logits = [list(column) for column in zip(*sites, strict=True)]
    part = LearnedRatio(settle=0.1)
    groups = part.split(sizes, moment(sparsity, step=95), ratio_state(part, logits))
    assert sum(group.count for group in groups) == round(sum(sizes) * sparsity)
    assert all(0 <= g.count <= n for g, n in zip(groups, sizes, strict=True))
    by_ratio = sorted(zip(logits, groups, sizes, strict=True), key=lambda site: site[0])
    pruned = [group.count / size for _, group, size in by_ratio]
    slack = [1 / size for _, _, size in by_ratio]
    for i in range(len(pruned) - 1):
        assert pruned[i] >= pruned[i + 1] - slack[i] - slack[i + 1]


def test_settled_ratios_by_hand():
    """Ratios .5 and .8 have odds 1 and 4. Keeping 70 of 200: odds x d, with d / (1 + d) +
    4 d / (1 + 4 d) = .7, so 8 d^2 + 5 d = .7 (1 + 5 d + 4 d^2) and d = (-1.5 + root) / 10.4."""
    part = LearnedRatio(settle=0.1)
    state = ratio_state(part, [logit(0.5), logit(0.8)])
    d = (-1.5 + math.sqrt(1.5**2 + 4 * 5.2 * 0.7)) / 10.4
    kept = [100 * d / (1 + d), 400 * d / (1 + 4 * d)]
    assert sum(kept) == pytest.approx(70)
    groups = part.split([100, 100], moment(0.65, step=95), state)
    assert [100 - group.count for group in groups] == [round(k) for k in kept]


@pytest.mark.parametrize("total", [40, 1000])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("travel", "warmup"), [(0.5, 0.1), (0.25, 0.0), (1.0, 0.2)])
def test_the_chosen_temperature_leads_to_the_target_in_time(total, sparsity, travel, warmup):
    """A push of any one size and direction, by torch's own Adam and a linear schedule."""
    part = LearnedRatio(travel=travel, optimizer=Adam(lr=1e-2, warmup=warmup))
    state = part.start([10, 20], total, sparsity)
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
    part = LearnedRatio(
        temperature=2.0, initial=0.0, optimizer=Adam(lr=0.1, warmup=0, decay="none")
    )
    state = part.start([10, 20, 30], 100, 0.5)
    mask = torch.tensor([1.0, 1.0, -0.2], dtype=torch.float64)
    ratio = torch.tensor([0.0, -16.0, 0.8], dtype=torch.float64)
    part.learn_(state, mask, ratio, moment(0.5, step=1))
    # k (1 - k) / T = 1/8: gradients 1, 1 - 2 and -0.2 + 0.1.
    assert state["sigma_exp_avg"].tolist() == pytest.approx([0.1, -0.1, -0.01])
    assert state["sigma"].tolist() == pytest.approx([-0.1, 0.1, 0.1], abs=1e-7)
    assert part.ratios(state).tolist() == pytest.approx(
        [1 / (1 + math.exp(x)) for x in (0.05, -0.05, -0.05)], abs=1e-7
    )


def test_by_kind():
    assert Budget.model_validate("threshold") == Threshold()
    assert Budget.model_validate({"kind": "learned_ratio", "initial": 3}) == LearnedRatio(initial=3)
    assert Budget.model_validate("uniform") == Uniform()
    assert Budget.model_validate({"kind": "global", "compat": True}) == Global(compat=True)


def test_across_sizes_counts_weights():
    budget = AcrossSizes()
    assert budget.mixes(moment(0.5)) and not Global().mixes(moment(0.5))
    [group] = budget.split([10, 10], moment(0.5), {}, [10, 30])
    assert group == Quota((0, 1), 200, of_weights=True)


def test_a_fixed_count_of_units_of_unlike_sizes_is_of_their_weights():
    early, late = moment(0.5, step=50), moment(0.5, step=95)
    for part in (Threshold(settle=0.1), LearnedRatio(settle=0.1)):
        assert part.mixes(late) and not part.mixes(early)
    [group] = Threshold(settle=0.1).split([10, 10], late, {}, [10, 30])
    assert group == Quota((0, 1), 200, of_weights=True)
    # Ratios .21 and .5967 keep 21 + 179 of 400, which is half: no shift. 7.9 and 4.03 units go: 7
    # and 4 are 190, and the one with the larger rest makes it 200.
    part = LearnedRatio(settle=0.1)
    state = ratio_state(part, [logit(0.21), logit(0.5967)])
    counts = [group.count for group in part.split([10, 10], late, state, [10, 30])]
    assert 200 <= 10 * counts[0] + 30 * counts[1] < 230
    assert counts == [8, 4]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "neuron+2:4"])
def test_across_sizes_is_for_units_of_several_weights(pattern):
    with pytest.raises(ValueError, match="across_sizes ranks units of several weights"):
        sentei.serialization.override(
            sentei.magnitude(0.5), [f"pattern={pattern!r}", "budget=across_sizes"]
        )


def test_a_threshold_on_a_sigmoid_is_below_one():
    with pytest.raises(ValueError, match=r"final=1 is a threshold on a sigmoid"):
        Threshold(final=1.0)
    assert Threshold(final=1.5, sigmoid=False).final == 1.5
