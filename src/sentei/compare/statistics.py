"""Means with their spread, and differences of pairs with an interval."""

from __future__ import annotations

import statistics
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

CONFIDENCE: Final = 0.95
"""Of the intervals."""


class Spread(NamedTuple):
    """Of some values: their number, mean and their sample standard deviation (n - 1).

    One value has no deviation: ``deviation`` is None then.
    """

    n: int
    mean: float
    deviation: float | None


class Interval(NamedTuple):
    """A mean difference over ``n`` pairs, with the ends of its t interval.

    One pair has no interval: ``low`` and ``high`` are None then.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Count, mean and sample standard deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), deviation)


def interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval for the mean of at least one difference.

    mean ± t s / sqrt(n), with t the quantile of n - 1 degrees of freedom. It takes the
    differences for independent draws from one normal distribution.
    """
    n, mean, deviation = spread(differences)
    if deviation is None:
        return Interval(n, mean, None, None)
    from scipy import stats  # type: ignore[import-untyped]  # takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal but for rounding: an end is a mean
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    return Interval(n, mean, float(low), float(high))


def paired(ours: Mapping[K, float], theirs: Mapping[K, float]) -> dict[K, float]:
    """``ours`` minus ``theirs`` for every key that both have, in the order of ``ours``."""
    return {key: value - theirs[key] for key, value in ours.items() if key in theirs}


def pooled(differences: Iterable[tuple[K, float]], size: int = 1) -> list[float]:
    """One mean difference for each key that has at least ``size``.

    Runs of one task and seed share their start and the order of their data, whatever their
    sparsity, and so do their differences: an interval that counted each would be too narrow. A mean
    over fewer sparsities than the others is not like them, and is left out.
    """
    groups = defaultdict[K, list[float]](list)
    for key, difference in differences:
        groups[key].append(difference)
    return [statistics.fmean(group) for group in groups.values() if len(group) >= size]


def front(points: Mapping[K, tuple[float, float]]) -> set[K]:
    """Names of the points for which no other is as good in both coordinates and better in one."""
    return {
        name
        for name, (x, y) in points.items()
        if not any(
            other != name and a >= x and b >= y and (a > x or b > y)
            for other, (a, b) in points.items()
        )
    }
