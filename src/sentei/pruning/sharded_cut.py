"""The exact cut over shards: which ``count`` entries score lowest, of all that processes hold.

No score leaves its process. What goes around are counts: the scores' bit patterns, as integers in
the same order, are counted in some hundred bins between the ends of a bracket, the counts are
summed over the processes, and the bin that holds the rank is the next bracket, until it is one
value. All rankings of a decision are counted together, one sum a level, so that there are no more
exchanges for many matrices than for one. Every process knows the same sums and comes to the same
cuts. Ties at the threshold break by tensor, then by index in the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sentei.distributed import Ranks
from sentei.pruning.cut import Bracket, Cut, Ranking, keep_, next_bracket
from sentei.pruning.ties import Ties, pruned_here
from sentei.sharded import Shard
from sentei.tensors import CHUNK

BINS = 256
"""At most, of one count."""

HELD = 8 * CHUNK
"""Entries of the bins that hold thresholds that are kept between two levels, of all rankings; what
is more is looked for among all scores again."""

_INT = {torch.float32: torch.int32, torch.float64: torch.int64}
NAN = "a score is NaN"


def find_sharded_cuts(
    rankings: Sequence[Ranking], *, ranks: Ranks, dtype: torch.dtype
) -> list[tuple[Cut, Bracket | None]]:
    """Find the cuts that prune exactly the ``count`` lowest scores of each ranking, of all
    processes.

    All of them call it, each with what it holds, in the same order.

    Args:
        rankings: Of what is held here; tensors may be empty.
        ranks: Who holds the rest.
        dtype: Of the scores.

    Returns:
        Each one's cut, and the bracket to pass next time.

    Raises:
        ValueError: A ``count`` is out of range.
        FloatingPointError: A score is NaN, in any of the processes.
    """
    made = dict[int, tuple[Cut, Bracket | None]]()
    for i, cut in _cuts_at(rankings, ranks).items():
        if cut.below + cut.ties <= rankings[i].count:
            made[i] = cut, rankings[i].warm
    held = Held(HELD)
    searches = dict[int, _Search]()
    for i, one in enumerate(rankings):
        if i not in made and one.count == 0:
            made[i] = Cut(-math.inf, 0, 0), one.warm
        elif i not in made:
            searches[i] = _Search(one, dtype, held)
    while under_way := [one for one in searches.values() if one.found is None]:
        counts = torch.cat([one.count() for one in under_way])
        own, all_ = counts.tolist(), ranks.reduce_(counts).tolist()
        for search in under_way:
            size = search.bins + 3
            search.narrow(own[:size], all_[:size])
            own, all_ = own[size:], all_[size:]
    made |= {i: search.result() for i, search in searches.items()}
    return [made[i] for i in range(len(rankings))]


class Held:
    """How many entries may still be kept between two levels.

    Args:
        entries: At most, of all rankings.
    """

    def __init__(self, entries: int) -> None:
        self._left = entries

    def grants(self, entries: int) -> bool:
        """Whether so many more may be; they count as kept then."""
        granted = entries <= self._left
        self._left -= entries if granted else 0
        return granted


class _Search:
    """The threshold of a ranking, by counting: :meth:`count` and :meth:`narrow`, in turns.

    Args:
        ranking: Of what is held here.
        dtype: Of the scores.
        held: For what is kept between two levels.
    """

    def __init__(self, ranking: Ranking, dtype: torch.dtype, held: Held) -> None:
        self._ranking, self._dtype, self._held = ranking, dtype, held
        self._bits = torch.finfo(dtype).bits
        self.found: tuple[float, int, float | None] | None = None
        """The threshold, how many scores are below it, and the mean distance between scores in the
        first bracket."""
        warm = ranking.warm
        if warm is not None and warm.low <= warm.high:  # NaN where there is no bracket yet
            self._look_between(warm.low, warm.high)
        else:
            self._look_between(-math.inf, math.inf)

    def _look_between(self, low: float, high: float) -> None:
        self._ends = low, high
        self._first, self._last = self._key(low), self._key(high)
        self._kept: list[Tensor] | None = None
        self._below, self._inside = 0, -1
        self._spacing: float | None = None
        self._set_bins()

    def _set_bins(self) -> None:
        """Leave out as many bits as makes few enough bins."""
        self._shift = 0
        while (self._last >> self._shift) - (self._first >> self._shift) + 1 > BINS:
            self._shift += 1
        self.bins = (self._last >> self._shift) - (self._first >> self._shift) + 1

    def count(self) -> Tensor:
        """How many scores held here are in each bin, below the first, above the last, and NaN,
        (bins + 3,); the last three only where nothing is known yet.
        """
        first, last, shift, bins = self._first, self._last, self._shift, self.bins
        counts = torch.zeros(bins + 3, dtype=torch.int64, device=self._ranking.scores[0].device)
        keeps = self._kept is None and self._inside >= 0 and self._held.grants(self._inside)
        band = list[Tensor]()
        for keys in self._keys() if self._kept is None else self._kept:
            within = keys[(keys >= first) & (keys <= last)]
            if keeps:
                band.append(within)
            counts[:bins] += torch.bincount((within >> shift) - (first >> shift), minlength=bins)
            if self._inside < 0:
                sides = (keys < first, keys > last, self._nan(keys))
                counts[bins:] += torch.stack([torch.count_nonzero(side) for side in sides])
        self._kept = band if keeps else self._kept
        return counts

    def narrow(self, own: Sequence[int], summed: Sequence[int]) -> None:
        """Go on with the bin that holds the rank.

        Args:
            own: What :meth:`count` gave here.
            summed: The same of all processes.

        Raises:
            FloatingPointError: A score is NaN.
            ValueError: There are not as many scores as are to be pruned.
        """
        if self._inside < 0:
            count, within = self._ranking.count, sum(summed[: self.bins])
            under, over, nans = summed[self.bins :]
            self.total = under + within + over
            if nans:
                raise FloatingPointError(NAN)
            if not under < count <= under + within:
                if self._ends == (-math.inf, math.inf):
                    raise ValueError(f"cannot prune {count} of {self.total} weights")
                self._look_between(-math.inf, math.inf)
                return
            self._below = under
            low, high = self._ends
            self._spacing = (high - low) / within if math.isfinite(high - low) else None
        self._choose(own, summed)

    def _choose(self, own: Sequence[int], summed: Sequence[int]) -> None:
        """Make the bin that holds the rank the next bracket."""
        place, count = 0, self._ranking.count
        while self._below + summed[place] < count:
            self._below += summed[place]
            place += 1
        start = ((self._first >> self._shift) + place) << self._shift
        self._first = max(self._first, start)
        self._last = min(self._last, start + (1 << self._shift) - 1)
        self._inside = own[place]
        if self._first == self._last:
            self.found = self._value(self._first), self._below, self._spacing
            self._kept = None
        self._set_bins()

    def result(self) -> tuple[Cut, Bracket]:
        """The cut that was found, and the next bracket."""
        assert self.found is not None
        threshold, below, spacing = self.found
        bracket = next_bracket(threshold, self._ranking.warm, 0.0005 * self.total, spacing)
        return Cut(threshold, below, self._ranking.count - below), bracket

    def _keys(self) -> Iterator[Tensor]:
        """The scores as integers in the same order, piece by piece."""
        for one in self._ranking.scores:
            for _, _, piece in one.pieces():
                bits = (piece + 0.0).view(_INT[self._dtype])  # -0.0 + 0.0 is 0.0: zeros must tie
                yield bits ^ ((bits >> (self._bits - 1)) & ((1 << (self._bits - 1)) - 1))

    def _nan(self, keys: Tensor) -> Tensor:
        """Which are beyond infinity."""
        return (keys > self._key(math.inf)) | (keys < self._key(-math.inf))

    def _key(self, value: float) -> int:
        bits = int((torch.tensor(value, dtype=self._dtype) + 0.0).view(_INT[self._dtype]))
        return bits ^ ((1 << (self._bits - 1)) - 1) if bits < 0 else bits

    def _value(self, key: int) -> float:
        bits = key ^ ((1 << (self._bits - 1)) - 1) if key < 0 else key
        return float(torch.tensor(bits, dtype=_INT[self._dtype]).view(self._dtype))


def _cuts_at(rankings: Sequence[Ranking], ranks: Ranks) -> dict[int, Cut]:
    """The cuts at thresholds that are given, by the number of the ranking; they prune every score
    equal to it too.

    Raises:
        FloatingPointError: A score is NaN, in any of the processes.
    """
    given = {i: one.threshold for i, one in enumerate(rankings) if one.threshold is not None}
    if not given:
        return {}
    device = rankings[0].scores[0].device
    counts = torch.zeros(len(given), 3, dtype=torch.int64, device=device)
    for row, (i, threshold) in zip(counts, given.items(), strict=True):
        for one in rankings[i].scores:
            for _, _, piece in one.pieces():
                sides = (piece < threshold, piece == threshold, torch.isnan(piece))
                row += torch.stack([torch.count_nonzero(side) for side in sides])
    numbers = ranks.reduce_(counts).tolist()
    if any(nans for _, _, nans in numbers):
        raise FloatingPointError(NAN)
    pairs = zip(given.items(), numbers, strict=True)
    return {i: Cut(threshold, below, ties) for (i, threshold), (below, ties, _) in pairs}


def prune_shards_(
    every: Sequence[tuple[Sequence[Tensor], Ranking, Cut]],
    shards: Sequence[Sequence[Shard]],
    *,
    ranks: Ranks,
) -> list[int]:
    """Write the masks of cuts: True where the weight is kept.

    Args:
        every: Of each ranking one contiguous bool tensor per entry of its scores, which is
            overwritten; the ranking as it was given to :func:`find_sharded_cuts`; and its cut.
        shards: Of each ranking where the entries of each of its tensors lie.
        ranks: Who holds the rest.

    Returns:
        For each ranking how many mask entries changed, in all processes.

    Raises:
        FloatingPointError: Scores changed while they were ranked; in all of the processes.
    """
    if not every:
        return []
    device = every[0][1].scores[0].device
    numbers = torch.zeros(len(every), 2, dtype=torch.int64, device=device)
    rankings = [
        ([Ties(*one, cut.threshold) for one in zip(ranking.scores, own, strict=True)], cut.ties)
        for (_, ranking, cut), own in zip(every, shards, strict=True)
    ]
    allowed = pruned_here(rankings, ranks)
    for row, (masks, ranking, cut), ties in zip(numbers, every, allowed, strict=True):
        for mask, one, left in zip(masks, ranking.scores, ties, strict=True):
            flat = mask.view(-1)
            for start, stop, piece in one.pieces():
                under, tied, changed = keep_(flat[start:stop], piece, cut.threshold, left)
                left -= tied
                row += torch.tensor([under, changed], device=device)
    flips = list[int]()
    for (_, _, cut), (pruned, changed) in zip(every, ranks.reduce_(numbers).tolist(), strict=True):
        if pruned != cut.below + cut.ties:
            raise FloatingPointError(
                f"{pruned} weights fell under the cut where {cut.below + cut.ties} should: "
                "some scores are NaN or changed while they were ranked"
            )
        flips.append(changed)
    return flips
