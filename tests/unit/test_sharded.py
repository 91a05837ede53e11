"""What a process holds of a tensor, seen from one. Of several: see tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from sentei.distributed import Ranks
from sentei.sharded import Shard, is_sharded, like, local, shard_of, take_, why_unlike


def test_a_whole_tensor_is_all_here():
    tensor = torch.nn.Parameter(torch.ones(3, 2))
    ranks = Ranks([tensor])
    assert not is_sharded(tensor) and not ranks.share and shard_of(tensor) is None
    assert local(tensor).data_ptr() == tensor.data_ptr() and not local(tensor).requires_grad
    number = torch.tensor(3)
    assert ranks.reduce_(number) is number and like(tensor, number) is number
    assert ranks.total(3) == 3 and not ranks.anywhere(False)
    assert why_unlike([("a", tensor), ("b", tensor)]) is None


@pytest.mark.parametrize(
    ("starts", "sizes"),
    [((0, 0), (2, 4)), ((3, 0), (2, 4)), ((5, 0), (0, 4)), ((0, 1), (5, 2)), ((2, 2), (3, 2))],
    ids=["first rows", "last rows", "none", "columns", "block"],
)
def test_a_block_in_its_place(starts, sizes):
    whole = torch.arange(20.0).view(5, 4)
    shard = Shard((5, 4), starts, sizes)
    part = shard.part(whole)
    (row, column), (rows, columns) = starts, sizes
    assert torch.equal(part, whole[row : row + rows, column : column + columns])
    assert torch.equal(shard.places(torch.arange(part.numel())), part.flatten().long())
    back = shard.whole(part, fill=-1.0)
    assert torch.equal(shard.part(back), part) and (back == -1).sum() == 20 - rows * columns


def test_one_process_holds_all_rows():
    """Of what fully_shard leaves it, and takes whole values into them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard as Split
    from torch.distributed.tensor import distribute_tensor

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh, values = init_device_mesh("cpu", (1,)), torch.arange(6.0).view(3, 2)
        held = distribute_tensor(torch.zeros(3, 2), mesh, [Split(0)])
        ranks = Ranks([held])
        assert ranks.share and ranks.first and shard_of(held) == Shard((3, 2), (0, 0), (3, 2))
        take_(held, values)
        assert torch.equal(local(held), values)
        take_(held, like(held, values + 1))
        assert torch.equal(held.full_tensor(), values + 1)
        assert ranks.total(2) == 2
        some = [torch.ones(2), torch.ones(2, 2, dtype=torch.int64), torch.zeros(())]
        ranks.reduce_all_(some)
        assert [one.sum().item() for one in some] == [2, 4, 0]
        told = why_unlike([("a", held), ("b", values)])
        assert told == "a is sharded and b is not"
    finally:
        distributed.destroy_process_group()
