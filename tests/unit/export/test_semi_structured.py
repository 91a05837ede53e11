"""2:4 weights: which layers can be converted, why others cannot, and who has no GPU for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sentei.export.semi_structured import linear, semi_structured_, unfit


def layer(rows=64, columns=128, dtype=torch.float16):
    """A layer whose weights keep two of every four."""
    torch.manual_seed(0)
    made = nn.Linear(columns, rows).to(dtype)
    with torch.no_grad():
        made.weight.view(rows, -1, 4)[..., ::2] = 0
    return made


def crowded():
    made = layer()
    with torch.no_grad():
        made.weight[5, 8] = 1
    return made


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (layer(), "it is on cpu, not on the GPU"),
        (layer(dtype=torch.float32), "it is in float32, not in fp16 or bf16"),
        (layer(rows=40), "its shape 40 x 128 is no multiple of 32 x 64"),
        (layer(columns=96), "its shape 64 x 96 is no multiple of 32 x 64"),
        (crowded(), "of some 4 weights side by side 3 are left, and 2 may be"),
    ],
    ids=["cpu", "fp32", "rows", "columns", "crowded"],
)
def test_a_layer_that_cannot_be_converted_says_why(made, reason):
    assert unfit(made) == reason


def test_layers_are_found_by_name():
    model = nn.Sequential(layer(), nn.ReLU(), nn.Sequential(layer()))
    assert [*linear(model)] == ["0", "2.0"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_and_nothing_changes():
    model = nn.Sequential(layer())
    before = model[0].weight
    with pytest.raises(ValueError, match="sparse tensor cores, and this PyTorch finds no NVIDIA"):
        semi_structured_(model)
    assert model[0].weight is before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="sparse tensor cores are in GPUs")
def test_a_gpu_gives_the_same_outputs():
    model = nn.Sequential(layer(), layer(64, 64, torch.float16), crowded()).cuda()
    model[1] = layer(128, 64).cuda()
    inputs = torch.randn(3, 7, 128, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        before = model(inputs)
        report = semi_structured_(model)
        after = model(inputs)
    assert report.converted == ("0", "1") and [*report.others] == ["2"]
    torch.testing.assert_close(after, before, rtol=1e-2, atol=1e-2)
