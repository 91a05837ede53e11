"""Ties over shards: which of the scores at a threshold are pruned, when not all of them are.

They break by tensor, then by index in the whole tensor, as they do in one process, whichever blocks
processes hold. So where a tensor loses some of its ties only, these are counted by row of the whole
tensor, and those of the last row by column: every process then knows the last that is pruned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.distributed import Ranks
from sentei.sharded import Shard
from sentei.tensors import Scores


@dataclass(frozen=True)
class Ties:
    """The scores of one tensor that are equal to a threshold, as far as they are held here."""

    scores: Scores
    shard: Shard
    threshold: float

    def count(self) -> Tensor:
        """How many there are, 0-d."""
        total = self._zeros()
        for _, _, piece in self.scores.pieces():
            total += torch.count_nonzero(piece == self.threshold)
        return total

    def count_to(self, last: int) -> int:
        """How many of them lie in the whole tensor no later than at a place."""
        return sum(int(torch.count_nonzero(places <= last)) for places in self._places())

    def by_row(self) -> Tensor:
        """How many there are in each row of the whole tensor."""
        rows, columns = self._shape
        counts = self._zeros(rows)
        for places in self._places():
            counts += torch.bincount(places // columns, minlength=rows)
        return counts

    def by_column(self, row: int) -> Tensor:
        """How many there are in each column of a row of the whole tensor: 1 or 0."""
        _, columns = self._shape
        counts = self._zeros(columns)
        for places in self._places():
            counts += torch.bincount(places[places // columns == row] % columns, minlength=columns)
        return counts

    def _places(self) -> Iterator[Tensor]:
        """Where they lie in the whole tensor, flat, piece by piece."""
        for start, _, piece in self.scores.pieces():
            yield self.shard.places((piece == self.threshold).nonzero().view(-1) + start)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.shard.shape[0], math.prod(self.shard.shape[1:])

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.scores.device)


def pruned_here(rankings: Sequence[tuple[Sequence[Ties], int]], ranks: Ranks) -> list[list[int]]:
    """How many ties to prune of those held here, the first, of each tensor of each ranking.

    Args:
        rankings: Of each the ties of its tensors, in order, and how many of all processes' ties
            are pruned.
        ranks: Who holds the rest.
    """
    every = [ties for tensors, _ in rankings for ties in tensors]
    if not any(pruned for _, pruned in rankings):
        return [[0 for _ in tensors] for tensors, _ in rankings]
    here = torch.stack([ties.count() for ties in every]).cpu()
    totals, lefts = ranks.reduce_(here.clone()), list[Tensor]()
    sizes = [len(tensors) for tensors, _ in rankings]
    for counts, (_, pruned) in zip(totals.split(sizes), rankings, strict=True):
        lefts.append(pruned - (counts.cumsum(0) - counts))  # for this tensor and those after it
    wanted = dict(enumerate(torch.cat(lefts).tolist()))
    made = torch.where(torch.cat(lefts) >= totals, here, 0).tolist()
    some = {i: wanted[i] for i, total in enumerate(totals.tolist()) if 0 < wanted[i] < total}
    lasts = _lasts([every[i] for i in some], [*some.values()], ranks)
    for i, last in zip(some, lasts, strict=True):
        made[i] = every[i].count_to(last)
    parts = iter(made)
    return [[next(parts) for _ in tensors] for tensors, _ in rankings]


def _lasts(every: Sequence[Ties], counts: Sequence[int], ranks: Ranks) -> list[int]:
    """Of each tensor the place in the whole of the last tie, where so many are pruned."""
    by_row = [ties.by_row() for ties in every]
    ranks.reduce_all_(by_row)
    rows, rests = list[int](), list[int]()
    for numbers, count in zip(by_row, counts, strict=True):
        before = numbers.cumsum(0)
        rows.append(int((before < count).sum()))
        rests.append(count - int((before - numbers)[rows[-1]]))
    by_column = [ties.by_column(row) for ties, row in zip(every, rows, strict=True)]
    ranks.reduce_all_(by_column)
    return [
        row * numbers.numel() + int((numbers.cumsum(0) < rest).sum())
        for row, numbers, rest in zip(rows, by_column, rests, strict=True)
    ]
