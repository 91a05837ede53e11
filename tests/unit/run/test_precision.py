"""What arithmetic a run trains with."""

import pytest
import torch
from torch import nn

from sentei.messages import SenteiWarning
from sentei.run.precision import precision, round_, written_dtype


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_only_emulates_bf16_trains_in_fp16(native, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert precision("auto") == chosen


def test_fp16_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--precision fp16 needs a GPU"):
        precision("fp16")


@pytest.mark.parametrize(
    ("wish", "stored", "written"),
    [
        ("auto", torch.float16, torch.float16),
        ("auto", torch.bfloat16, torch.bfloat16),
        ("auto", torch.float32, torch.float32),
        ("auto", torch.float64, torch.float32),
        ("fp32", torch.float16, torch.float32),
        ("bf16", torch.float32, torch.bfloat16),
    ],
)
def test_weights_are_written_as_they_were_read_or_as_asked(wish, stored, written):
    assert written_dtype(wish, stored) == written


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_makes_no_zero(dtype):
    model = nn.Linear(8, 1, bias=False)
    tiny = torch.tensor([[0.0, -0.0, 1e-10, -1e-10, 1e-40, -1e-40, 1.0, -65504.0]])
    model.weight.data = tiny.clone()
    round_(model, dtype)
    assert model.weight.dtype == dtype
    assert torch.equal(model.weight.data == 0, tiny == 0)
    assert torch.equal(torch.sign(model.weight.data.float()), torch.sign(tiny))
    assert model.weight.data[0, 6] == 1


def test_what_is_beyond_the_range_is_not_made_infinite():
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1e-10, 1e6]])
    with pytest.warns(SenteiWarning, match="weight has numbers beyond"):
        round_(model, torch.float16)
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight.data, torch.tensor([[1e-10, 1e6]]))
