"""Budgets: counts that add up exactly, whatever the sizes."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentei.parts.budget import Budget, Global, Uniform

SIZES = st.lists(st.integers(1, 3_000_000), min_size=1, max_size=40)
SPARSITY = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.5, 0.9, 0.1, 1 / 3]))
BUDGETS = pytest.mark.parametrize("budget", [Global(), Uniform(), Global(compat=True)])


@BUDGETS
@given(sizes=SIZES, sparsity=SPARSITY)
def test_counts_add_up_exactly(budget, sizes, sparsity):
    groups = budget.split(sizes, sparsity)
    assert sorted(i for group in groups for i in group.sites) == list(range(len(sizes)))
    wanted = sum(sizes) * sparsity
    whole = int(wanted) if isinstance(budget, Global) and budget.compat else round(wanted)
    assert sum(group.count for group in groups) == whole
    assert all(0 <= g.count <= sum(sizes[i] for i in g.sites) for g in groups)


@BUDGETS
@given(sizes=SIZES, ends=st.tuples(SPARSITY, SPARSITY).map(sorted))
def test_more_sparsity_never_prunes_less(budget, sizes, ends):
    fewer, more = (sum(g.count for g in budget.split(sizes, s)) for s in ends)
    assert fewer <= more


@BUDGETS
@given(sizes=SIZES)
def test_ends(budget, sizes):
    assert all(group.count == 0 for group in budget.split(sizes, 0.0))
    almost_all = budget.split(sizes, 1 - 2**-53)
    assert sum(group.count for group in almost_all) >= sum(sizes) - 1


@given(sizes=SIZES, sparsity=SPARSITY)
def test_uniform_is_within_one_weight_of_the_same_sparsity_everywhere(sizes, sparsity):
    groups = Uniform().split(sizes, sparsity)
    assert [group.sites for group in groups] == [(i,) for i in range(len(sizes))]
    for group, size in zip(groups, sizes, strict=True):
        assert abs(group.count - Fraction(sparsity) * size) < 1 + 1e-6


def test_uniform_by_hand():
    # 2.25, 1.5 and 3.75 make 7.5, which rounds to 8: two to give, to .75 and to .5.
    assert [group.count for group in Uniform().split([9, 6, 15], 0.25)] == [2, 2, 4]
    # Equal fractions: the earlier sites get them.
    assert [group.count for group in Uniform().split([5, 5, 5, 5], 0.5)] == [3, 3, 2, 2]


def test_only_the_authors_count_is_strict():
    assert [g.strict for g in Global(compat=True).split([10], 0.55)] == [True]
    assert [g.count for g in Global(compat=True).split([10], 0.55)] == [5]
    assert [(g.count, g.strict) for g in Global().split([10], 0.55)] == [(6, False)]


def test_by_kind():
    assert Budget.model_validate("uniform") == Uniform()
    assert Budget.model_validate({"kind": "global", "compat": True}) == Global(compat=True)
