"""The reweighted penalty. Its operator: see tests/faithful."""

from __future__ import annotations

import pytest
import torch

from helpers.progress import progress
from sentei.methods.proximal import ReweightedL1
from sentei.parts.penalties import Penalty


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shrinking_keeps_sign_and_dtype(dtype):
    weight = torch.tensor([0.5, -0.5, 0.01, -0.01], dtype=dtype)
    ReweightedL1(coefficient=0.1, epsilon=0.1).shrink_(weight, 0.1, progress(), torch.empty(4))
    left = 0.5 - 0.01 / 0.6
    assert weight.dtype == dtype
    assert weight.tolist() == pytest.approx([left, -left, 0, 0], rel=4e-3)


def test_kinds():
    assert Penalty.model_validate("reweighted_l1") == ReweightedL1()
