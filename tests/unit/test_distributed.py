"""Who trains beside us, seen from one process. Of several: see tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from sentei.distributed import (
    Ranks,
    Shard,
    anywhere,
    is_main,
    is_sharded,
    local,
    of_another,
    take_,
    together,
    why_unlike,
)


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("12", False)])
def test_the_first_process_writes(monkeypatch, rank, main):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main() == main


@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_of_one_process_alone(flag):
    assert anywhere(flag, torch.device("cpu")) is flag


@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_is_asked_of_the_group(flag):
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        assert anywhere(flag, torch.device("cpu")) is flag
    finally:
        distributed.destroy_process_group()


def test_a_whole_tensor_is_all_here():
    tensor = torch.nn.Parameter(torch.ones(3, 2))
    ranks = Ranks([tensor])
    assert not is_sharded(tensor) and not ranks.share and ranks.shard(tensor) is None
    assert local(tensor).data_ptr() == tensor.data_ptr() and not local(tensor).requires_grad
    number = torch.tensor(3)
    assert ranks.reduce_(number) is number and ranks.like(tensor, number) is number
    assert ranks.total(3) == 3 and not ranks.anywhere(False)
    assert why_unlike([("a", tensor), ("b", tensor)]) is None


@pytest.mark.parametrize(("start", "rows"), [(0, 2), (3, 2), (5, 0)])
def test_rows_in_their_place(start, rows):
    whole = torch.arange(20.0).view(5, 4)
    shard = Shard((5, 4), start, rows)
    part = shard.part(whole)
    assert shard.offset == 4 * start and torch.equal(part, whole[start : start + rows])
    back = shard.whole(part, fill=-1.0)
    assert torch.equal(shard.part(back), part) and (back == -1).sum() == 20 - 4 * rows


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
        assert ranks.share and ranks.shard(held) == Shard((3, 2), 0, 3)
        take_(held, values)
        assert torch.equal(local(held), values)
        take_(held, ranks.like(held, values + 1))
        assert torch.equal(held.full_tensor(), values + 1)
        assert ranks.total(2) == 2
        some = [torch.ones(2), torch.ones(2, 2, dtype=torch.int64), torch.zeros(())]
        ranks.reduce_all_(some)
        assert [one.sum().item() for one in some] == [2, 4, 0]
        told = why_unlike([("a", held), ("b", values)])
        assert told == "a is sharded and b is not"
    finally:
        distributed.destroy_process_group()


GLOO = (
    "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[127.0.0.1]:896. This is typically caused by a remote worker crashing."
)


def test_a_process_that_is_gone_is_said():
    def gone() -> None:
        raise RuntimeError(GLOO)

    with pytest.raises(RuntimeError) as told:
        together(gone)
    assert "has ended" in str(told.value) and "(Connection closed by peer [127" in str(told.value)
    assert "pair.cc" not in str(told.value) and "--resume" in str(told.value)


@pytest.mark.parametrize(
    ("error", "another"),
    [
        (RuntimeError("shapes do not fit"), False),
        (distributed.DistBackendError("NCCL error: remote process exited"), True),
        (distributed.DistNetworkError("connection reset"), True),
        (ValueError("/home/gloo/data.csv: no such file"), False),
    ],
    ids=["own", "nccl", "network", "elsewhere"],
)
def test_errors_of_others(error, another):
    assert bool(of_another(error)) == another
