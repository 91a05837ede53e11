"""The exact cut where nothing may wait: radix selection over rows of scores, on their device.

Scores lie in rows, each of one place; rows that are ranked together have one quota. All quotas are
cut at once. Scores become integers in the same order, and the threshold of every quota is found
digit by digit, most significant first, by histograms that stay on the device, as everything else:
how much of the quota is left, which of the equal scores still go, how many masks have changed. What
:mod:`sentei.pruning.cut` finds on a CPU is the same, ties and all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.pruning.later import Later, onto

HELD = 1 << 28
"""Keys that are held during a decision, a GiB of float32's; more are made anew for every digit."""

_DIGITS = {torch.int32: (12, 10, 10), torch.int64: (12, 12, 10, 10, 10, 10)}
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
_INFINITY = {torch.int32: 0x7F800000, torch.int64: 0x7FF0000000000000}


@dataclass(frozen=True)
class Rows:
    """Scores of places with equally many entries, and their masks.

    ``read`` gives the scores, (rows, entries), float32 or float64; ``keep`` is of that shape, bool,
    True = kept, and overwritten. ``places`` numbers the rows in the order in which ties break;
    ``quotas`` says what each row is ranked with.
    """

    read: Callable[[], Tensor]
    keep: Tensor
    places: Sequence[int]
    quotas: Sequence[int]


@dataclass(frozen=True)
class Wanted:
    """What a quota prunes: the ``count`` lowest. See :class:`~sentei.parts.budget.Quota`."""

    count: int
    strict: bool = False
    threshold: float | None = None


@dataclass(frozen=True)
class Numbers:
    """What came of a selection: ``pruned`` and ``flips`` of every place, ``threshold`` of every
    quota; ``nan`` says that a score is NaN, and that nothing was pruned therefore.
    """

    pruned: dict[int, int]
    flips: dict[int, int]
    thresholds: list[float]
    nan: bool


class Selection:
    """A cut of several quotas, whose masks are written and whose numbers come later.

    Args:
        rows: All that is ranked, at least one row; float32 or float64 alike.
        wanted: What each quota prunes.
    """

    def __init__(self, rows: Sequence[Rows], wanted: Sequence[Wanted]) -> None:
        self._rows, self._wanted = rows, wanted
        self._home = rows[0].keep.device
        total = sum(one.keep.numel() for one in rows)
        self._held: dict[int, Tensor] | None = {} if total <= HELD else None
        self._quotas = onto([quota for one in rows for quota in one.quotas], self._home)
        self._nan = self._any_nan()
        thresholds, ties = self._thresholds()
        at = self._of_rows(thresholds[self._quotas])
        counts = self._write(at, self._shared_out(at, ties))
        self._later = Later(torch.cat([*counts, thresholds, self._nan.view(1)]))
        self._held = None

    def wait(self) -> Numbers:
        """The numbers."""
        values = self._later.wait()
        places = [place for one in self._rows for place in one.places]
        sizes = [one.keep.shape[1] for one in self._rows for _ in one.places]
        kept, flips, keys, nan = values.split([len(places)] * 2 + [len(self._wanted), 1])
        pruned = [size - k for size, k in zip(sizes, kept.tolist(), strict=True)]
        thresholds = _ordered(keys.to(self._dtype)).view(self._float)
        return Numbers(
            pruned=dict(zip(places, pruned, strict=True)),
            flips=dict(zip(places, flips.tolist(), strict=True)),
            thresholds=thresholds.tolist(),
            nan=bool(nan),
        )

    # Keys: integers in the order of the scores.

    def _keys(self, number: int) -> Tensor:
        """The keys of some rows, (rows, entries)."""
        if self._held is not None and number in self._held:
            return self._held[number]
        scores = self._rows[number].read()
        self._float, self._dtype = scores.dtype, _BITS[scores.dtype]
        keys = _ordered(scores.view(self._dtype))
        if self._held is not None:
            self._held[number] = keys
        return keys

    def _any_nan(self) -> Tensor:
        """Whether a score is NaN, whose keys lie beyond those of the infinities."""
        ends = [torch.aminmax(self._keys(number)) for number in range(len(self._rows))]
        infinity = _INFINITY[self._dtype]
        low = torch.stack(self._here([end.min for end in ends]))
        high = torch.stack(self._here([end.max for end in ends]))
        return (low.amin() < -infinity) | (high.amax() > infinity)

    def _of_rows(self, values: Tensor) -> list[Tensor]:
        """Values of rows as columns, (rows, 1), beside the keys of each."""
        columns = values.unsqueeze(1).split([len(one.places) for one in self._rows])
        pairs = zip(columns, self._rows, strict=True)
        return [column.to(one.keep.device, non_blocking=True) for column, one in pairs]

    def _here(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [value.to(self._home, non_blocking=True) for value in values]

    # The thresholds.

    def _thresholds(self) -> tuple[Tensor, Tensor]:
        """The key at which each quota is cut, and how many of the scores equal to it go."""
        left = self._counts()
        base = torch.zeros_like(left, dtype=self._dtype)
        digits = _DIGITS[self._dtype]
        remaining = sum(digits)
        for level, width in enumerate(digits):
            remaining -= width
            # The first digit carries the sign.
            base = base - (1 << (width - 1)) if level == 0 else base << width
            histogram = self._histogram(base, remaining, 1 << width)
            under = histogram.cumsum(0) < left
            left = left - (histogram * under).sum(0)
            base = base + under.sum(0).to(self._dtype)
        strict = [one.strict for one in self._wanted]
        if any(strict):
            left = left.masked_fill(onto(strict, self._home, torch.bool), 0)
        # Nothing is as low as this: nothing is pruned.
        return base.masked_fill(self._nan, torch.iinfo(self._dtype).min), left

    def _counts(self) -> Tensor:
        """How many each quota prunes, (quotas,): no more than are at or below its threshold."""
        counts = onto([one.count for one in self._wanted], self._home)
        limits = [one.threshold for one in self._wanted]
        if all(limit is None for limit in limits):
            return counts
        floats = [torch.inf if limit is None else limit for limit in limits]
        keys = _ordered(torch.tensor(floats, dtype=self._float).view(self._dtype))
        limit = self._of_rows(onto(keys.tolist(), self._home, self._dtype)[self._quotas])
        under = [(self._keys(i) <= most).sum(1) for i, most in enumerate(limit)]
        most = torch.zeros_like(counts).scatter_add_(0, self._quotas, torch.cat(self._here(under)))
        return torch.minimum(counts, most)

    def _histogram(self, base: Tensor, remaining: int, bins: int) -> Tensor:
        """How many keys of each quota have each digit, (bins, quotas), of those with its prefix.

        A digit and its quota make one number, digit x quotas + quota, which is outside of all bins
        where the prefix is another one.
        """
        quotas, counts = base.numel(), []
        numbers = self._of_rows(self._quotas.to(self._dtype)) if quotas > 1 else None
        for i, prefix in enumerate(self._of_rows(base[self._quotas])):
            digits = (self._keys(i) >> remaining).sub_(prefix)
            if numbers is not None:
                digits = torch.add(numbers[i], digits.clamp_(-1, bins), alpha=quotas)
            counts.append(_count(digits, bins * quotas))
        return torch.stack(self._here(counts)).sum(0, dtype=torch.int64).view(bins, quotas)

    # The masks.

    def _shared_out(self, at: Sequence[Tensor], ties: Tensor) -> list[Tensor]:
        """How many of its scores equal to the threshold each row prunes, (rows, 1): the first in
        the order of places.
        """
        equal = [(self._keys(i) == key).sum(1) for i, key in enumerate(at)]
        places = [(q, p) for one in self._rows for q, p in zip(one.quotas, one.places, strict=True)]
        order = sorted(range(len(places)), key=places.__getitem__)
        back = sorted(range(len(order)), key=order.__getitem__)
        firsts = dict[int, int]()
        for position, row in enumerate(order):
            firsts.setdefault(places[row][0], position)
        first = [firsts[places[row][0]] for row in order]
        quota = [places[row][0] for row in order]
        order_, back_, first_, quota_ = onto([*order, *back, *first, *quota], self._home).chunk(4)
        mine = torch.cat(self._here(equal))[order_]
        before = mine.cumsum(0) - mine
        left = (ties[quota_] - (before - before[first_])).clamp_(min=0)
        return self._of_rows(torch.minimum(left, mine)[back_])

    def _write(self, at: Sequence[Tensor], shares: Sequence[Tensor]) -> list[Tensor]:
        """Write the masks; how many of every row are kept, and how many have changed."""
        kept, flips = [], []
        for i, one in enumerate(self._rows):
            keys = self._keys(i)
            equal = keys == at[i]
            seen = equal.view(-1).cumsum(0, dtype=torch.int32).view_as(equal)
            last = seen[:, :1] - equal[:, :1].int() + shares[i]  # of those that go
            keep = (keys >= at[i]).logical_xor_(equal.logical_and_(seen <= last))
            kept.append(keep.sum(1))
            flips.append((keep != one.keep).sum(1))
            one.keep.copy_(keep)
        return self._here([*kept, *flips])


def _ordered(bits: Tensor) -> Tensor:
    """Between float bits and integers in the same order; its own inverse, but that -0.0 is 0.0."""
    return torch.where(bits < 0, torch.iinfo(bits.dtype).min - bits, bits)


def _count(numbers: Tensor, bins: int) -> Tensor:
    """How often each of 0, ..., bins - 1 occurs; what is outside is not counted. (bins,)."""
    if numbers.is_cuda:
        return torch.histc(numbers, bins, 0, bins - 1)
    # Elsewhere integers have no histogram, and in float64 they are exact.
    return torch.histc(numbers.double(), bins, 0, bins - 1).to(numbers.dtype)
