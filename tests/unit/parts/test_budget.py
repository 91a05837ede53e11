"""Budgets: counts that add up exactly, whatever the sizes."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sentei
from helpers.progress import progress
from sentei.parts.budget import AcrossSizes, Budget, Global, Quota, Threshold, Uniform

SIZES = st.lists(st.integers(1, 3_000_000), min_size=1, max_size=40)
SPARSITY = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.5, 0.9, 0.1, 1 / 3]))
BUDGETS = pytest.mark.parametrize("budget", [Global(), Uniform(), Global(compat=True)])


def split(budget, sizes, sparsity):
    return budget.split(sizes, progress(sparsity), {})


@BUDGETS
@given(sizes=SIZES, sparsity=SPARSITY)
def test_counts_add_up_exactly(budget, sizes, sparsity):
    quotas = split(budget, sizes, sparsity)
    assert sorted(i for quota in quotas for i in quota.places) == list(range(len(sizes)))
    share = sum(sizes) * sparsity
    count = int(share) if isinstance(budget, Global) and budget.compat else round(share)
    assert sum(quota.count for quota in quotas) == count
    assert all(0 <= quota.count <= sum(sizes[i] for i in quota.places) for quota in quotas)


@BUDGETS
@given(sizes=SIZES, ends=st.tuples(SPARSITY, SPARSITY).map(sorted))
def test_more_sparsity_never_prunes_less(budget, sizes, ends):
    fewer, more = (sum(quota.count for quota in split(budget, sizes, s)) for s in ends)
    assert fewer <= more


@BUDGETS
@given(sizes=SIZES)
def test_ends(budget, sizes):
    assert all(quota.count == 0 for quota in split(budget, sizes, 0.0))
    almost_all = split(budget, sizes, 1 - 2**-53)
    assert sum(quota.count for quota in almost_all) >= sum(sizes) - 1


@given(sizes=SIZES, sparsity=SPARSITY)
def test_uniform_is_within_one_weight_of_the_same_sparsity_everywhere(sizes, sparsity):
    quotas = split(Uniform(), sizes, sparsity)
    assert [quota.places for quota in quotas] == [(i,) for i in range(len(sizes))]
    for quota, size in zip(quotas, sizes, strict=True):
        assert abs(quota.count - Fraction(sparsity) * size) < 1 + 1e-6


def test_uniform_by_hand():
    # 2.25, 1.5 and 3.75 make 7.5, which rounds to 8: two to give, to .75 and to .5.
    assert [quota.count for quota in split(Uniform(), [9, 6, 15], 0.25)] == [2, 2, 4]
    # Equal fractions: the earlier sites get them.
    assert [quota.count for quota in split(Uniform(), [5, 5, 5, 5], 0.5)] == [3, 3, 2, 2]


def test_uniform_keeps_multiples():
    budget = Uniform(multiple=8)
    kept = {
        # 12.8 is nearest to 16 and 3 to nothing, but some of every place stays.
        sparsity: [size - quota.count for size, quota in zip([64, 15, 4], quotas, strict=True)]
        for sparsity in (0.0, 0.5, 0.8)
        for quotas in [split(budget, [64, 15, 4], sparsity)]
    }
    assert kept == {0.0: [64, 15, 4], 0.5: [32, 8, 4], 0.8: [16, 8, 4]}
    assert budget.spare(3) == 24 and Uniform().spare(3) == 0


def test_only_the_authors_count_is_strict():
    assert [quota.strict for quota in split(Global(compat=True), [10], 0.55)] == [True]
    assert [quota.count for quota in split(Global(compat=True), [10], 0.55)] == [5]
    assert [(quota.count, quota.strict) for quota in split(Global(), [10], 0.55)] == [(6, False)]


@pytest.mark.parametrize("budget", [Global(), Uniform()])
def test_counts_that_are_given_are_settled_from_the_start(budget):
    assert budget.settled(progress(0.1, step=1)) and budget.start([3], 100, 0.5) == {}


# Counts that come out of training.


@pytest.mark.parametrize(
    ("settle", "first"), [(None, None), (0.0, 100), (0.1, 90), (0.25, 75), (1.0, 0)]
)
def test_the_count_settles_in_the_last_part_of_training(settle, first):
    budget = Threshold(settle=settle)
    settled = [step for step in range(101) if budget.settled(progress(step=step))]
    assert settled == ([] if first is None else list(range(first, 101)))


def test_threshold_rises_with_the_schedule():
    budget, now = Threshold(final=0.2, settle=None), progress(0.4, final=0.8)
    (one, two) = budget.split([1000, 100], now, {})
    # Half the way: sigmoid(score) <= 0.1 is pruned; 0.5 % and one more are kept.
    assert one.threshold == two.threshold == pytest.approx(math.log(0.1 / 0.9))
    assert (one.places, one.count, two.places, two.count) == ((0,), 1000 - 6, (1,), 100 - 1)
    assert [quota.threshold for quota in budget.split([9], progress(0.0), {})] == [-math.inf]
    raw = Threshold(final=0.2, sigmoid=False, settle=None)
    assert [quota.threshold for quota in raw.split([9], now, {})] == [pytest.approx(0.1)]
    fixed = Threshold(final=0.2, rises=False, sigmoid=False, least=0.0, settle=None)
    assert fixed.split([9], progress(0.0), {}) == (Quota((0,), 8, threshold=0.2),)


def test_threshold_settles_to_one_exact_count():
    budget = Threshold(settle=0.1)
    assert budget.split([7, 8], progress(0.5, step=95), {}) == (Quota((0, 1), 8),)


def test_by_kind():
    assert Budget.model_validate("threshold") == Threshold()
    assert Budget.model_validate("uniform") == Uniform()
    assert Budget.model_validate({"kind": "global", "compat": True}) == Global(compat=True)


def test_across_sizes_counts_weights():
    budget = AcrossSizes()
    assert budget.mixes(progress(0.5)) and not Global().mixes(progress(0.5))
    [quota] = budget.split([10, 10], progress(0.5), {}, [10, 30])
    assert quota == Quota((0, 1), 200, of_weights=True)


def test_a_fixed_count_of_units_of_unlike_sizes_is_of_their_weights():
    budget, late = Threshold(settle=0.1), progress(0.5, step=95)
    assert budget.mixes(late) and not budget.mixes(progress(0.5, step=50))
    [quota] = budget.split([10, 10], late, {}, [10, 30])
    assert quota == Quota((0, 1), 200, of_weights=True)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "neuron+2:4"])
def test_across_sizes_is_for_units_of_several_weights(pattern):
    with pytest.raises(ValueError, match="across_sizes ranks units of several weights"):
        sentei.override(sentei.magnitude(0.5), [f"pattern={pattern!r}", "budget=across_sizes"])


def test_a_threshold_on_a_sigmoid_is_below_one():
    with pytest.raises(ValueError, match=r"final=1 is a threshold on a sigmoid"):
        Threshold(final=1.0)
    assert Threshold(final=1.5, sigmoid=False).final == 1.5
