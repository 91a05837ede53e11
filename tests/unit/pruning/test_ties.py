"""Ties among blocks of matrices are pruned in the order of the whole ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from sentei.pruning.ties import Ties, pruned_here
from sentei.sharded import Shard
from sentei.tensors import Scores

PARTITIONS = {
    "whole": [((0, 0), (5, 6))],
    "rows": [((0, 0), (2, 6)), ((2, 0), (3, 6)), ((5, 0), (0, 6))],
    "columns": [((0, 0), (5, 4)), ((0, 4), (5, 2))],
    "blocks": [((0, 0), (3, 3)), ((0, 3), (3, 3)), ((3, 0), (2, 3)), ((3, 3), (2, 3))],
    "blocks, by columns": [((0, 0), (3, 3)), ((3, 0), (2, 3)), ((0, 3), (3, 3)), ((3, 3), (2, 3))],
}
"""Of a matrix of 5 x 6: where the block of each process starts, and its size."""


class Summed:
    """Processes that sum, as threads."""

    def __init__(self, number: int) -> None:
        self._barrier = Barrier(number)
        self._brought: list[torch.Tensor] = []

    def reduce_(self, tensor: torch.Tensor) -> torch.Tensor:
        self._brought.append(tensor.clone())
        self._barrier.wait()
        tensor.copy_(torch.stack(self._brought).sum(0))
        if self._barrier.wait() == 0:
            self._brought = []
        self._barrier.wait()
        return tensor

    def reduce_all_(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            self.reduce_(tensor)


def scores(tensor: torch.Tensor) -> Scores:
    flat = tensor.contiguous().view(-1)
    return Scores(flat.numel(), flat.device, lambda start, stop: flat[start:stop])


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("pruned", [0, 1, 7, 12, 25, 28])
def test_the_first_ties_of_the_whole_are_pruned(partition, pruned):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randint(0, 2, (5, 6), generator=generator).double() for _ in range(2)]
    assert sum(int(matrix.sum()) for matrix in matrices) > 28
    rest, wanted = pruned, []
    for matrix in matrices:
        tied = matrix.flatten().nonzero().view(-1)[:rest]
        wanted.append(torch.zeros(30, dtype=torch.bool).index_fill_(0, tied, True).view(5, 6))
        rest -= tied.numel()
    blocks = [Shard((5, 6), *block) for block in PARTITIONS[partition]]
    ranks = Summed(len(blocks))

    def here(shard: Shard) -> list[list[int]]:
        ties = [Ties(scores(shard.part(matrix)), shard, 1.0) for matrix in matrices]
        return pruned_here([(ties, pruned), (ties[:1], 3)], ranks)

    with ThreadPoolExecutor(len(blocks)) as pool:
        for shard, made in zip(blocks, pool.map(here, blocks), strict=True):
            assert made[0] == [int(shard.part(want).sum()) for want in wanted]
            for matrix, want, count in zip(matrices, wanted, made[0], strict=True):
                mine = shard.part(matrix).flatten().nonzero().view(-1)[:count]
                assert shard.part(want).flatten()[mine].all()
