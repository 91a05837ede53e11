"""The exact cut: which ``count`` entries of many tensors score lowest, without gathering them.

Scores are read in pieces and never exist all at once. A cut is found in one pass when a bracket
holds the threshold: entries below the bracket are counted, entries inside it collected, and the
threshold picked among those few. The bracket is *warm*, from an earlier cut, or else aimed by a
sample. Where both fail (many ties, say), the cut is found by counting the digits of the scores' bit
patterns, most significant first, which assumes nothing and takes one pass a digit. All ways give
the same, exact answer: ties at the threshold break by tensor order, then by index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sentei.tensors import CHUNK, Scores

_DIGITS = {torch.float32: (12, 10, 10), torch.float64: (16, 16, 16, 16)}


@dataclass(frozen=True)
class Cut:
    """Prune every score below ``threshold``, and the first ``ties`` of those equal to it.

    ``below`` is how many are below, so ``below + ties`` are pruned.
    """

    threshold: float
    below: int
    ties: int


@dataclass(frozen=True)
class Bracket:
    """Where the next threshold is expected, ends included; the last one, and how far it moved."""

    low: float
    high: float
    threshold: float
    move: float = math.nan


@dataclass(frozen=True)
class Ranking:
    """What is ranked together, in the order in which ties break: prune the ``count`` lowest.

    With a ``threshold``, prune what scores no higher than it, unless that is more. ``warm`` is the
    bracket of an earlier cut over similar scores.
    """

    scores: Sequence[Scores]
    count: int
    threshold: float | None = None
    warm: Bracket | None = None


def find(ranking: Ranking) -> tuple[Cut, Bracket | None]:
    """The cut of a ranking, and the bracket to pass next time.

    Raises:
        ValueError: ``count`` is out of range.
        FloatingPointError: A score is NaN.
    """
    if ranking.threshold is not None:
        cut = cut_at(ranking.scores, ranking.threshold)
        if cut.below + cut.ties <= ranking.count:
            return cut, ranking.warm
    return find_cut(ranking.scores, ranking.count, ranking.warm)


def find_cut(
    scores: Sequence[Scores], count: int, warm: Bracket | None = None
) -> tuple[Cut, Bracket]:
    """Find the cut that prunes exactly the ``count`` lowest scores.

    Args:
        scores: The tensors ranked together, in the order in which ties break.
        count: How many entries to prune, from 0 to their total number.
        warm: The bracket returned with an earlier cut over similar scores.

    Returns:
        The cut, and the bracket to pass next time.

    Raises:
        ValueError: ``count`` is out of range.
    """
    total = sum(s.size for s in scores)
    if not 0 <= count <= total:
        raise ValueError(f"cannot prune {count} of {total} weights")
    if count == 0:
        return Cut(-math.inf, 0, 0), warm or Bracket(math.nan, math.nan, math.nan)
    limit = max(CHUNK, max(site.size for site in scores) // 4)
    cut, spacing = None, None
    if warm is not None:
        cut, spacing = _cut_in_bracket(scores, count, warm.low, warm.high, limit)
    if cut is None:
        cut, spacing = _cut_in_bracket(scores, count, *_aim(scores, count), limit)
    if cut is None:
        cut = _cut_by_digits(scores, count)
    return cut, next_bracket(cut.threshold, warm, 0.0005 * total, spacing)


def cut_at(scores: Sequence[Scores], threshold: float) -> Cut:
    """The cut at a given threshold, which prunes every score equal to it too.

    Raises:
        FloatingPointError: A score is NaN.
    """
    below = ties = 0
    for site in scores:
        for _, _, piece in site.pieces():
            under, tied, over = _sides(piece, threshold)
            if under + tied + over != piece.numel():
                raise FloatingPointError("a score is NaN")
            below, ties = below + under, ties + tied
    return Cut(threshold, below, ties)


def prune_(masks: Sequence[Tensor], scores: Sequence[Scores], cut: Cut) -> int:
    """Write the masks of a cut: True where the weight is kept.

    Args:
        masks: One contiguous bool tensor per entry of ``scores``, of any shape; overwritten.
        scores: The same scores in the same order as given to :func:`find_cut`.
        cut: What :func:`find_cut` returned for them.

    Returns:
        How many mask entries changed.

    Raises:
        FloatingPointError: A score is NaN (it compares false with every threshold, so the number
            pruned does not come out); the masks are then unspecified.
    """
    flips, pruned, ties = 0, 0, cut.ties
    for mask, site in zip(masks, scores, strict=True):
        flat = mask.view(-1)
        for start, stop, piece in site.pieces():
            under, tied, changed = keep_(flat[start:stop], piece, cut.threshold, ties)
            pruned, ties, flips = pruned + under, ties - tied, flips + changed
    if pruned != cut.below + cut.ties:
        raise FloatingPointError(
            f"{pruned} weights fell under the cut where {cut.below + cut.ties} should: "
            "some scores are NaN or changed while they were ranked"
        )
    return flips


def prune_rows_(
    mask: Tensor, scores: Tensor, count: int, *, before: int = 0, rows: int | None = None
) -> int:
    """Write the mask of a matrix whose rows are ranked alone: True where the weight is kept.

    Args:
        mask: (rows, columns), bool; overwritten.
        scores: Of the same shape.
        count: How many entries to prune of the whole matrix; each row prunes as many, the first
            ones one more.
        before: How many rows the matrix has before these.
        rows: How many it has in all, by default these.

    Returns:
        How many mask entries changed.

    Raises:
        FloatingPointError: A score is NaN.
    """
    if bool(scores.isnan().any()):
        raise FloatingPointError("a score is NaN")
    return int(keep_rows_(mask, scores, count, before=before, rows=rows))


def keep_rows_(
    mask: Tensor, scores: Tensor, count: int, *, before: int = 0, rows: int | None = None
) -> Tensor:
    """What :func:`prune_rows_` does with scores without NaN, without waiting for a device.

    Returns:
        How many mask entries changed, 0-d.
    """
    each, more = divmod(count, rows or scores.shape[0])
    more = max(more - before, 0)
    flips = torch.zeros((), dtype=torch.int64, device=mask.device)
    for some, lowest in ((slice(more), each + 1), (slice(more, None), each)):
        values, old = scores[some], mask[some]
        keep = torch.ones_like(old)
        if lowest and values.shape[0]:
            threshold = values.kthvalue(lowest, dim=1, keepdim=True).values
            keep = values >= threshold
            ties = values == threshold
            left = lowest - (~keep).sum(1, keepdim=True)
            keep &= ~(ties & (ties.cumsum(1) <= left))
        flips += (keep != old).sum()
        old.copy_(keep)
    return flips


def next_bracket(
    threshold: float, last: Bracket | None, entries: float, spacing: float | None
) -> Bracket:
    """Wide enough for so many entries at the spacing just seen, and for twice the last move; around
    where the threshold is when it moves on as it did, if it has done so.
    """
    reach = 0.01 * abs(threshold) if spacing is None else entries * spacing
    if last is None or not math.isfinite(last.threshold):
        return Bracket(threshold - reach, threshold + reach, threshold)
    move, middle = threshold - last.threshold, threshold
    error = abs(move - last.move)
    if error < abs(move) / 2:
        middle, reach = threshold + move, max(reach, 2 * error, abs(move) / 4)
    else:
        reach = max(reach, 2 * abs(move))
    return Bracket(middle - reach, middle + reach, threshold, move)


def _aim(scores: Sequence[Scores], count: int) -> tuple[float, float]:
    """A bracket from a sample: runs of 256 entries, every 64th of them.

    Its margin is eight standard errors of the rank, since entries of one run are alike. Where all
    scores are few, the bracket is everything.
    """
    total = sum(site.size for site in scores)
    if total <= CHUNK:
        return -math.inf, math.inf
    run, stride = 256, 64 * 256
    places = [(site, start) for site in scores for start in range(0, site.size, stride)]
    sample = np.empty(run * len(places), dtype=scores[0].read(0, 1).cpu().numpy().dtype)
    filled = 0
    for site, start in places:
        values = site.read(start, min(start + run, site.size)).cpu().numpy()
        sample[filled : filled + values.size] = values
        filled += values.size
    sample = sample[:filled]
    share = count / total
    margin = 8 * math.sqrt(sample.size * share * (1 - share)) + run
    low, high = round(sample.size * share - margin), round(sample.size * share + margin)
    sample.partition([max(low, 0), min(high, sample.size - 1)])
    return (
        float(sample[low]) if low >= 0 else -math.inf,
        float(sample[high]) if high < sample.size else math.inf,
    )


def _cut_in_bracket(
    scores: Sequence[Scores], count: int, low: float, high: float, limit: int
) -> tuple[Cut | None, float | None]:
    """One pass: the cut, and the mean distance between the scores in the bracket.

    No cut where the rank falls outside the bracket, or where it holds more than ``limit`` entries
    that are not all one value.
    """
    if not low <= high:  # NaN where there is no bracket yet
        return None, None
    below, inside = 0, 0
    band: list[np.ndarray] = []
    for site in scores:
        for _, _, piece in site.pieces():
            lower, values = _split(piece, low, high)
            below += lower
            inside += values.size
            if low == high:
                continue
            if below >= count or inside > limit:
                return None, None
            band.append(values)
    rank = count - below - 1
    if not 0 <= rank < inside:
        return None, None
    if low == high:
        return Cut(low, below, count - below), 0.0
    values = np.concatenate(band)
    values.partition(rank)
    threshold = float(values[rank])
    under = int(np.count_nonzero(values < threshold))
    spacing = (high - low) / inside if math.isfinite(high - low) else None
    return Cut(threshold, below + under, count - below - under), spacing


def _cut_by_digits(scores: Sequence[Scores], count: int) -> Cut:
    """Radix selection over the order-preserving integer image of the scores."""
    dtype = next((s.read(0, 1).dtype for s in scores if s.size), torch.float32)
    digits = _DIGITS[dtype]
    remaining = sum(digits)
    below, prefix = 0, 0
    for level, width in enumerate(digits):
        remaining -= width
        histogram = np.zeros(1 << width, dtype=np.int64)
        for site in scores:
            for _, _, piece in site.pieces():
                histogram += _digit_counts(piece, level, prefix, remaining, width)
        cumulated = below + np.cumsum(histogram)
        digit = int(np.searchsorted(cumulated, count))
        if digit == len(histogram):
            raise FloatingPointError("scores changed while they were ranked, or are NaN")
        below = int(cumulated[digit] - histogram[digit])
        # The first digit carries the sign: its bins run from the most negative up.
        signed = digit - (1 << (width - 1)) if level == 0 else digit
        prefix = (prefix << width) | signed if level else signed
    bits = np.array([prefix], dtype=np.int32 if dtype == torch.float32 else np.int64)
    threshold = float(_flip_negative(bits).view(_FLOAT[bits.dtype.itemsize])[0])
    return Cut(threshold, below, count - below)


_FLOAT = {4: np.float32, 8: np.float64}
_INT = {4: np.int32, 8: np.int64}


def _flip_negative(bits: np.ndarray) -> np.ndarray:
    """Between float bits and integers in the same order; its own inverse."""
    top = bits.dtype.itemsize * 8 - 1
    flipped: np.ndarray = bits ^ ((bits >> top) & np.array((1 << top) - 1, dtype=bits.dtype))
    return flipped


# Below, every operation on a piece. numpy on a CPU, where its compare and count run two to four
# times as fast as torch's on cache-sized pieces; torch elsewhere.


def _on_cpu(piece: Tensor) -> bool:
    return piece.device.type == "cpu"


def _digit_counts(piece: Tensor, level: int, prefix: int, remaining: int, width: int) -> np.ndarray:
    values = piece + 0.0  # -0.0 + 0.0 is 0.0: the two zeros must tie
    if level == 0 and bool(torch.isnan(values).any()):
        raise FloatingPointError("a score is NaN")
    if _on_cpu(piece):
        array = values.numpy()
        ordered = _flip_negative(array.view(_INT[array.itemsize]))
        counts: np.ndarray = np.bincount(
            _digit(ordered, level, prefix, remaining, width), minlength=1 << width
        )
        return counts
    bits = values.view(torch.int32 if values.dtype == torch.float32 else torch.int64)
    top = values.element_size() * 8 - 1
    digits = _digit(bits ^ ((bits >> top) & ((1 << top) - 1)), level, prefix, remaining, width)
    on_device: Tensor = torch.bincount(digits, minlength=1 << width)
    return on_device.cpu().numpy()


_Array = TypeVar("_Array", np.ndarray, Tensor)


def _digit(ordered: _Array, level: int, prefix: int, remaining: int, width: int) -> _Array:
    """The digit at ``level`` of every entry whose higher digits equal ``prefix``."""
    if level == 0:
        first: _Array = (ordered >> remaining) + (1 << (width - 1))
        return first
    chosen = ordered[(ordered >> (remaining + width)) == prefix]
    digit: _Array = (chosen >> remaining) & ((1 << width) - 1)
    return digit


def _sides(piece: Tensor, threshold: float) -> tuple[int, int, int]:
    """How many lie below a threshold, on it, and above it."""
    if _on_cpu(piece):
        array = piece.numpy()
        sides = (array < threshold, array == threshold, array > threshold)
        under, tied, over = (int(np.count_nonzero(side)) for side in sides)
    else:
        within = (piece < threshold, piece == threshold, piece > threshold)
        under, tied, over = torch.stack([side.sum() for side in within]).tolist()
    return under, tied, over


def _split(piece: Tensor, low: float, high: float) -> tuple[int, np.ndarray]:
    """How many lie below ``low``, and the values within ``[low, high]``."""
    if _on_cpu(piece):
        array = piece.numpy()
        lower = array < low
        inside = (array <= high) ^ lower
        return int(np.count_nonzero(lower)), array[np.flatnonzero(inside)]
    below = piece < low
    values: np.ndarray = piece[(piece <= high) ^ below].cpu().numpy()
    return int(below.sum()), values


def keep_(mask: Tensor, piece: Tensor, threshold: float, ties: int) -> tuple[int, int, int]:
    """Write the mask of one piece; return how many are pruned, how many tied, how many flipped."""
    if _on_cpu(piece):
        array, old = piece.numpy(), mask.numpy()
        kept = array >= threshold
        tied = np.flatnonzero(array == threshold)[:ties] if ties else ()
        if ties:
            kept[tied] = False
        flips = int(np.count_nonzero(kept != old))
        old[:] = kept
        return kept.size - int(np.count_nonzero(kept)), len(tied), flips
    keep = piece >= threshold
    equal = (piece == threshold).nonzero().view(-1)[:ties] if ties else ()
    if ties:
        keep[equal] = False
    changed = int((keep != mask).sum())
    mask.copy_(keep)
    return keep.numel() - int(keep.sum()), len(equal), changed
