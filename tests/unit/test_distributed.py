"""Who trains beside us, seen from one process. Of several: see tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from sentei.distributed import anywhere, is_main


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
