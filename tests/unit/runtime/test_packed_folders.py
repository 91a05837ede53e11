"""Engines of packed folders: the same programs, and no dense matrix on the way."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import torch

from helpers.encoders import build
from helpers.packing import packed, prune_
from sentei import runtime
from sentei.pack import open_packed
from sentei.pack.tensor import PackedTensor
from sentei.runtime.cpu import Precision, host
from sentei.runtime.encoder import Unsupported

pytest.importorskip("llvmlite")

PRECISIONS = [name for name in get_args(Precision) if name in host().precisions]
BLOCK = re.compile(r"layers?\.\d")


def inputs(model) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=random)}
    return {"input_ids": torch.randint(5, 40, (3, 7), generator=random)}


@pytest.fixture(params=["bert", "mpnet", "vit"])
def model(request):
    """Nine tenths of the weights of its matrices are zero."""
    return prune_(build(request.param))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of tensors that were decoded."""
    names, decode = list[str](), PackedTensor.decode

    def noted(self, *arguments, **options):
        names.append(self.name)
        return decode(self, *arguments, **options)

    monkeypatch.setattr(PackedTensor, "decode", noted)
    return names


@pytest.mark.parametrize("values", ["fp32", "int8"])
def test_the_same_program_without_a_dense_matrix(values, model, tmp_path, decoded):
    folder = packed(model, tmp_path, values=values, embeddings=values)
    plain = type(model).from_pretrained(folder)
    given = inputs(model)
    for precision in PRECISIONS:
        decoded.clear()
        engine = runtime.compile(folder, precision)
        assert decoded and not any(BLOCK.search(name) for name in decoded)
        like = runtime.compile(plain, precision)
        assert str(engine.plan) == str(like.plan)
        here, there = engine(**given), like(**given)
        assert torch.equal(here.last_hidden_state, there.last_hidden_state)


def test_what_torch_may_have_to_run_is_dense(tmp_path):
    model = prune_(build("bert", "ForSequenceClassification"))
    engine = runtime.compile(packed(model, tmp_path), "fp32", fallback="torch")
    given = inputs(model)
    with torch.no_grad():
        states = model(**given, output_hidden_states=True).hidden_states
    torch.testing.assert_close(engine(**given, output_hidden_states=True).hidden_states, states)


def test_a_weight_that_is_not_finite(tmp_path):
    model = prune_(build("bert"))
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(Unsupported, match=r"encoder\.layer\.1\.output\.dense\.weight holds NaN"):
        runtime.compile(packed(model, tmp_path))
    with open_packed(tmp_path / "packed") as inside:
        inside.check()  # which is of the numbers as they were
