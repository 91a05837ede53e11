"""Statistics against numbers worked out by hand."""

from __future__ import annotations

import pytest

from sentei.compare.statistics import front, interval, paired, pooled, spread


def test_spread():
    """2, 4, 9: mean 5; squares of -3, -1, 4 are 26; 26 / 2 = 13."""
    assert spread([2, 4, 9]) == (3, 5, pytest.approx(13**0.5))
    assert spread([0.7]) == (1, 0.7, None)


def test_interval():
    """1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7; t of 2 degrees at 97.5 % is 4.302653."""
    n, mean, low, high = interval([1, 2, 6])
    reach = 4.302653 * (7 / 3) ** 0.5
    assert (n, mean) == (3, 3)
    assert (low, high) == (pytest.approx(3 - reach, abs=1e-5), pytest.approx(3 + reach, abs=1e-5))


def test_interval_of_two_and_of_one():
    """3 and 5: deviation sqrt(2), its mean's 1; t of 1 degree at 97.5 % is 12.7062."""
    assert interval([3, 5])[2:] == (pytest.approx(4 - 12.7062, abs=1e-4), pytest.approx(16.7062))
    assert interval([0.25]) == (1, 0.25, None, None)
    assert interval([0.5, 0.5]) == (2, 0.5, 0.5, 0.5)


def test_differences_that_are_equal_but_for_rounding(recwarn):
    low, high = interval([0.85 - 0.8, 0.84 - 0.79, 0.05])[2:]
    assert (low, high) == (pytest.approx(0.05), pytest.approx(0.05)) and not recwarn.list


def test_pairs_are_what_both_have():
    ours = {("mrpc", 0.8, 1): 0.9, ("mrpc", 0.8, 2): 0.7, ("stsb", 0.8, 1): 0.5}
    theirs = {("mrpc", 0.8, 2): 0.6, ("stsb", 0.8, 1): 0.6, ("stsb", 0.9, 1): 0.1}
    found = paired(ours, theirs)
    assert found == {("mrpc", 0.8, 2): pytest.approx(0.1), ("stsb", 0.8, 1): pytest.approx(-0.1)}


def test_what_shares_a_start_counts_once():
    """Two seeds at two sparsities are two differences: 2 and 5, not 1, 3, 4, 6."""
    assert pooled([(1, 1.0), (1, 3.0), (2, 4.0), (2, 6.0)]) == [2.0, 5.0]


def test_what_has_fewer_parts_than_the_others_is_left_out():
    assert pooled([(1, 1.0), (1, 3.0), (2, 4.0)], 2) == [2.0]


def test_front():
    """c is as sparse as b and worse; d is worse than a in both; e equals a."""
    points = {"a": (0.8, 0.9), "b": (0.9, 0.7), "c": (0.9, 0.6), "d": (0.7, 0.8), "e": (0.8, 0.9)}
    assert front(points) == {"a", "b", "e"}
