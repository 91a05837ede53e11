"""Who trains beside us, seen from one process. Of several: see tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from sentei.distributed import anywhere, is_main, of_another, together


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
