"""The exact cut over shards: which ``count`` entries score lowest, of all that processes hold.

No score leaves its process. What goes around are counts: the scores' bit patterns, as integers in
the same order, are counted in some hundred bins between the ends of a bracket, the counts are
summed over the processes, and the bin that holds the rank is the next bracket, until it is one
value. Every process knows the same sums and comes to the same cut. Ties at the threshold break by
tensor, then by index in the whole tensor: the processes hold rows in order, so it is enough to know
how many ties those before have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from sentei.distributed import Ranks
from sentei.pruning.cut import Bracket, Cut, Cuts, keep_, next_bracket
from sentei.tensors import CHUNK, Scores

BINS = 256
"""At most, of one count."""

_INT = {torch.float32: torch.int32, torch.float64: torch.int64}
NAN = "a score is NaN"


def sharded_cuts(ranks: Ranks, dtype: torch.dtype) -> Cuts:
    """The cuts over what processes hold of tensors with scores of ``dtype``."""
    return Cuts(
        partial(find_sharded_cut, ranks=ranks, dtype=dtype),
        partial(sharded_cut_at, ranks=ranks),
        partial(prune_shards_, ranks=ranks),
    )


def find_sharded_cut(
    scores: Sequence[Scores],
    count: int,
    warm: Bracket | None = None,
    *,
    ranks: Ranks,
    dtype: torch.dtype,
) -> tuple[Cut, Bracket]:
    """Find the cut that prunes exactly the ``count`` lowest scores, of all processes.

    All of them call it, each with what it holds, in the same order.

    Args:
        scores: Of the rows held here of the tensors ranked together; they may be empty.
        count: How many entries to prune, of all.
        warm: The bracket returned with an earlier cut over similar scores.
        ranks: Who holds the other rows.
        dtype: Of the scores.

    Returns:
        The cut, and the bracket to pass next time.

    Raises:
        ValueError: ``count`` is out of range.
        FloatingPointError: A score is NaN, in any of the processes.
    """
    if count == 0:
        return Cut(-math.inf, 0, 0), warm or Bracket(math.nan, math.nan, math.nan)
    search = _Search(scores, dtype, ranks)
    place = None
    if warm is not None and warm.low <= warm.high:
        place = search.between(warm.low, warm.high, count)
    place = place or search.between(-math.inf, math.inf, count)
    if place is None:
        raise ValueError(f"cannot prune {count} of {search.total} weights")
    threshold, below, spacing = place
    bracket = next_bracket(threshold, warm, 0.0005 * search.total, spacing)
    return Cut(threshold, below, count - below), bracket


class _Search:
    """The threshold, by counting."""

    def __init__(self, scores: Sequence[Scores], dtype: torch.dtype, ranks: Ranks) -> None:
        self._scores, self._dtype, self._ranks = scores, dtype, ranks
        self._bits = torch.finfo(dtype).bits
        self.total = 0
        """Entries in all processes, once they are counted."""

    def between(
        self, low: float, high: float, count: int
    ) -> tuple[float, int, float | None] | None:
        """The threshold, how many scores are below it, and the mean distance between scores in the
        bracket; None where the threshold is not in it.
        """
        first, last = self._key(low), self._key(high)
        kept: list[Tensor] | None = None
        below, inside, spacing = 0, -1, None
        while True:
            shift = self._shift(first, last)
            bins, collect = (last >> shift) - (first >> shift) + 1, inside >= 0 and kept is None
            counts = torch.zeros(bins + 3, dtype=torch.int64, device=self._device)
            small = collect and inside <= CHUNK
            band = list[Tensor]()
            for keys in kept if kept is not None else self._keys():
                within = keys[(keys >= first) & (keys <= last)]
                if small:
                    band.append(within)
                places = (within >> shift) - (first >> shift)
                counts[:bins] += torch.bincount(places, minlength=bins)
                if inside < 0:
                    counts[bins] += torch.count_nonzero(keys < first)
                    counts[bins + 1] += torch.count_nonzero(keys > last)
                    counts[bins + 2] += torch.count_nonzero(self._nan(keys))
            own = counts[:bins].clone()
            numbers = self._ranks.reduce_(counts).tolist()
            if inside < 0:
                below = numbers[bins]
                if numbers[bins + 2]:
                    raise FloatingPointError(NAN)
                within_all = sum(numbers[:bins])
                self.total = below + within_all + numbers[bins + 1]
                if not below < count <= below + within_all:
                    return None
                if math.isfinite(high - low):
                    spacing = (high - low) / within_all
            kept = band if small else kept
            place = 0
            while below + numbers[place] < count:
                below += numbers[place]
                place += 1
            start = ((first >> shift) + place) << shift
            first, last = max(first, start), min(last, start + (1 << shift) - 1)
            inside = int(own[place])
            if first == last:
                return self._value(first), below, spacing

    @property
    def _device(self) -> torch.device:
        return self._scores[0].device

    def _keys(self) -> Iterator[Tensor]:
        """The scores as integers in the same order, piece by piece."""
        for one in self._scores:
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

    def _shift(self, first: int, last: int) -> int:
        """How many bits to leave out for few enough bins."""
        shift = 0
        while (last >> shift) - (first >> shift) + 1 > BINS:
            shift += 1
        return shift


def sharded_cut_at(scores: Sequence[Scores], threshold: float, *, ranks: Ranks) -> Cut:
    """The cut at a given threshold, which prunes every score equal to it too.

    Raises:
        FloatingPointError: A score is NaN, in any of the processes.
    """
    counts = torch.zeros(3, dtype=torch.int64, device=scores[0].device)
    for one in scores:
        for _, _, piece in one.pieces():
            sides = (piece < threshold, piece == threshold, torch.isnan(piece))
            counts += torch.stack([torch.count_nonzero(side) for side in sides])
    below, ties, nans = ranks.reduce_(counts).tolist()
    if nans:
        raise FloatingPointError(NAN)
    return Cut(threshold, below, ties)


def prune_shards_(
    masks: Sequence[Tensor], scores: Sequence[Scores], cut: Cut, *, ranks: Ranks
) -> int:
    """Write the masks of a cut: True where the weight is kept.

    Args:
        masks: One contiguous bool tensor per entry of ``scores``; overwritten.
        scores: The same scores in the same order as given to :func:`find_sharded_cut`.
        cut: What it returned for them.
        ranks: Who holds the other rows.

    Returns:
        How many mask entries changed, in all processes.

    Raises:
        FloatingPointError: Scores changed while they were ranked; in all of the processes.
    """
    numbers = torch.zeros(2, dtype=torch.int64, device=scores[0].device)
    allowed = _ties(scores, cut, ranks)
    for mask, one, ties in zip(masks, scores, allowed, strict=True):
        flat, left = mask.view(-1), ties
        for start, stop, piece in one.pieces():
            under, tied, changed = keep_(flat[start:stop], piece, cut.threshold, left)
            left -= tied
            numbers += torch.tensor([under, changed], device=numbers.device)
    pruned, flips = ranks.reduce_(numbers).tolist()
    if pruned != cut.below + cut.ties:
        raise FloatingPointError(
            f"{pruned} weights fell under the cut where {cut.below + cut.ties} should: "
            "some scores are NaN or changed while they were ranked"
        )
    return int(flips)


def _ties(scores: Sequence[Scores], cut: Cut, ranks: Ranks) -> list[int]:
    """How many of the scores at the threshold to prune here, of each tensor."""
    if cut.ties == 0:
        return [0] * len(scores)
    tied = torch.zeros(ranks.size, len(scores), dtype=torch.int64, device=scores[0].device)
    for place, one in enumerate(scores):
        for _, _, piece in one.pieces():
            tied[ranks.rank, place] += torch.count_nonzero(piece == cut.threshold)
    by_order = ranks.reduce_(tied).T.flatten()  # tensor by tensor, and in it process by process
    before = (by_order.cumsum(0) - by_order).view(len(scores), ranks.size)[:, ranks.rank].tolist()
    mine = by_order.view(len(scores), ranks.size)[:, ranks.rank].tolist()
    return [min(max(cut.ties - b, 0), m) for b, m in zip(before, mine, strict=True)]
