"""Sizes that are said are those that are written."""

from __future__ import annotations

import torch
from safetensors import safe_open
from torch import nn
from transformers import BertConfig, BertModel

from helpers.packing import packed, prune_
from sentei.pack.folder import tables_of
from sentei.pack.sizes import measure, predict

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}


def make() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, num_hidden_layers=2, vocab_size=3000))


def test_measured_bytes_are_those_of_the_tensors_in_the_file(tmp_path):
    model = prune_(make())
    said = measure(model.named_parameters(), tables_of(model))
    for kind, size in zip(("fp32", "bf16", "int8"), said, strict=True):
        folder = packed(model, tmp_path / kind, values=kind, embeddings=kind)
        with safe_open(folder / "model.safetensors", framework="np") as tensors:
            data = sum(tensors.get_tensor(name).nbytes for name in tensors.keys())
        names = sum(map(len, dict(model.named_parameters())))  # each record has its name
        assert 0 <= data - size <= names + 8
        assert (folder / "model.safetensors").stat().st_size - data < 20_000


def test_what_cannot_be_written_so_is_counted_as_it_is():
    weight = torch.full((64, 64), float("nan"))
    weight[:60] = 0
    said = measure([("w", weight)], ())
    assert said.int8 == weight.nbytes > said.bf16


def test_predicted_bytes_are_near_those_after_pruning():
    model, pruned = make(), set[str]()
    for name, module in model.encoder.named_modules(prefix="encoder"):
        if isinstance(module, nn.Linear):
            pruned.add(f"{name}.weight")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    said = predict(model.named_parameters(), tables_of(model), pruned, 0.9)
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in pruned:
                weight[
                    weight.abs() < weight.abs().flatten().kthvalue(round(0.9 * weight.numel()))[0]
                ] = 0
    real = measure(model.named_parameters(), tables_of(model))
    for one, other in zip(said, real, strict=True):
        assert abs(one - other) < 0.01 * other


def test_nothing_pruned_is_predicted_too():
    model = make()
    said = predict(model.named_parameters(), tables_of(model), ["encoder.layer.0.x"], 0.0)
    real = measure(model.named_parameters(), tables_of(model))
    assert all(abs(one - other) < 0.01 * other for one, other in zip(said, real, strict=True))


def test_tensors_of_every_shape_are_counted():
    shapes = ((), (0,), (3,), (0, 4), (4, 0), (2, 3, 4), (1, 1 << 19))
    tensors = [(str(shape), torch.ones(shape)) for shape in shapes]
    bytes_ = sum(tensor.nbytes for _, tensor in tensors)
    assert set(measure(tensors, ())) == set(predict(tensors, (), (), 0.5)) == {bytes_}
