"""How a decision reaches the weights."""

from __future__ import annotations

import pytest
import torch

from sentei import select
from sentei.parts.masks import Mask, Project, zero_pruned_


def example(dtype=torch.float32):
    weight = torch.arange(1.0, 13.0, dtype=dtype).view(3, 4)
    keep = torch.arange(12).view(3, 4) % 3 != 0
    return weight, keep, torch.where(keep, weight, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [1 << 18, 5])
def test_zeroes_exactly_what_is_pruned(monkeypatch, dtype, chunk):
    monkeypatch.setattr(select, "CHUNK", chunk)
    weight, keep, expected = example(dtype)
    zero_pruned_(weight, keep)
    assert torch.equal(weight, expected)


def test_even_a_weight_that_is_not_finite():
    weight = torch.tensor([float("nan"), float("inf"), float("nan")])
    zero_pruned_(weight, torch.tensor([False, False, True]))
    assert weight[:2].tolist() == [0, 0] and weight[2].isnan()


@pytest.mark.parametrize(
    ("hold", "updated", "zeroed"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_project(hold, updated, zeroed):
    weight, keep, expected = example()
    before = weight.clone()
    mask = Project(hold=hold)
    mask.before_step_(weight, keep)
    assert torch.equal(weight, before), "the optimizer steps the weight as it is"
    mask.after_step_(weight, keep, updated)
    assert torch.equal(weight, expected if zeroed else before)


def test_by_kind():
    assert Mask.model_validate({"kind": "project", "hold": True}) == Project(hold=True)
    assert Mask.model_validate("project") == Project()
