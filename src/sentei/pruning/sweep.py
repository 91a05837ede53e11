"""The cut in one sweep, on a CPU: masks are written while the threshold is looked for.

Where a bracket is known, what scores above it stays and what scores below it goes, whatever the
threshold will be: only the few scores inside wait for it. So every score is read once, and every
mask written once. Scores that stand in memory are read by as many threads as torch has: numpy,
whose comparisons are the fastest there are here, has none of its own. What is found is what
:mod:`sentei.pruning.cut` finds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sentei.pruning.cut import Bracket, Cut, Ranking, next_bracket
from sentei.tensors import CHUNK, Scores, spans

LIMIT = 1 << 24
"""Entries that are ranked together, at most: their masks are kept twice meanwhile."""


@dataclass(frozen=True)
class Swept:
    """A cut whose masks are written, how many of these have changed, and the bracket to pass next
    time.
    """

    cut: Cut
    flips: int
    bracket: Bracket | None


def sweep_(masks: Sequence[Tensor], ranking: Ranking, *, strict: bool = False) -> Swept | None:
    """Cut, and write the masks: True where the weight is kept.

    Args:
        masks: One contiguous bool tensor for each tensor of scores, of any shape; overwritten.
        ranking: What is ranked together.
        strict: Keep all that score as high as the threshold.

    Returns:
        What came of it; None where it takes more than a sweep, and nothing is changed.

    Raises:
        FloatingPointError: A score is NaN; nothing is changed.
    """
    scores, count, warm = ranking.scores, ranking.count, ranking.warm
    low, high = _ends(ranking)
    total = sum(one.size for one in scores)
    on_cpu = all(one.device.type == "cpu" for one in scores)
    if not (on_cpu and count and low <= high and total <= LIMIT):
        return None
    limit = max(CHUNK, max(one.size for one in scores) // 4)
    olds = [mask.view(-1).numpy() for mask in masks]
    found = list[_Found]()
    for old, one in zip(olds, scores, strict=True):
        found += _over(one, old, low, high)
        if sum(part.values.size for part in found) > limit:
            return None
    values = np.concatenate([part.values for part in found])
    if np.isnan(values).any():
        raise FloatingPointError("a score is NaN")
    below, rank = sum(part.below for part in found), 0
    if ranking.threshold is not None:
        cut, spacing = Cut(low, below, values.size), None
        if cut.below + cut.ties > count:
            return None
    else:
        rank = count - below - 1
        if not 0 <= rank < values.size:
            return None
        found_at = float(np.partition(values, rank)[rank])
        under = int(np.count_nonzero(values < found_at))
        cut = Cut(found_at, below + under, rank + 1 - under)
        width = 0.0 if low == high else high - low  # both may be infinite
        spacing = width / values.size if math.isfinite(width) else None
    keep = values >= cut.threshold
    if not strict:
        keep[np.flatnonzero(values == cut.threshold)[: cut.ties]] = False
    else:
        cut = Cut(cut.threshold, cut.below, 0)
    flips = _write(found, keep)
    if ranking.threshold is not None:
        return Swept(cut, flips, warm)
    return Swept(cut, flips, next_bracket(cut.threshold, warm, 0.0005 * total, spacing))


def _ends(ranking: Ranking) -> tuple[float, float]:
    """Of the bracket; NaN where there is none."""
    if ranking.threshold is not None:
        return ranking.threshold, ranking.threshold
    return (ranking.warm.low, ranking.warm.high) if ranking.warm else (math.nan, math.nan)


@dataclass(frozen=True)
class _Found:
    """What one thread has found in its part of a mask.

    ``old`` are the masks there, ``kept`` those to come, False inside of the bracket until they are
    known; ``places`` are these, and ``values`` their scores. ``flips`` is how many of ``kept`` are
    not as ``old``.
    """

    old: np.ndarray
    kept: np.ndarray
    below: int
    flips: int
    places: np.ndarray
    values: np.ndarray


def _over(scores: Scores, old: np.ndarray, low: float, high: float) -> list[_Found]:
    """Look at all scores of a tensor."""

    def look(start: int, stop: int) -> _Found:
        kept = np.empty(stop - start, dtype=bool)
        below = flips = 0
        places, values = list[np.ndarray](), list[np.ndarray]()
        for first, last in spans(stop - start, scores.device):
            piece = scores.read(start + first, start + last).numpy()
            lower, upper = piece < low, np.greater(piece, high, out=kept[first:last])
            inside = np.flatnonzero(lower == upper)  # NaN too, which is neither
            below += int(np.count_nonzero(lower))
            flips += int(np.count_nonzero(upper != old[start + first : start + last]))
            places.append(inside + first)
            values.append(piece[inside])
        return _Found(
            old[start:stop], kept, below, flips, np.concatenate(places), np.concatenate(values)
        )

    return _shared_out(look, scores.size) if scores.stands else [look(0, scores.size)]


def _shared_out(look: Callable[[int, int], _Found], size: int) -> list[_Found]:
    """What is found in parts of so many entries, each by a thread of its own, in their order."""
    threads = min(torch.get_num_threads(), size // CHUNK)
    if threads < 2:
        return [look(0, size)]
    ends = [size * number // threads for number in range(threads + 1)]
    others = [_pool().submit(look, *pair) for pair in pairwise(ends[1:])]
    return [look(0, ends[1]), *(other.result() for other in others)]


@cache
def _pool_of(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "sentei-sweep")


def _pool() -> ThreadPoolExecutor:
    """Of this process: a fork has the object, and not its threads."""
    return _pool_of(os.getpid())


def _write(found: Sequence[_Found], keep: np.ndarray) -> int:
    """Write the masks, ``keep`` those inside of the bracket; how many have changed."""
    flips = start = 0
    for part in found:
        mine = keep[start : start + part.places.size]
        start += part.places.size
        before = part.old[part.places]
        part.kept[part.places] = mine
        flips += part.flips - int(np.count_nonzero(before)) + int(np.count_nonzero(before != mine))
        part.old[:] = part.kept
    return flips
