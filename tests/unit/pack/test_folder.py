"""A folder packed, opened and made plain again."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from sentei.pack import open_packed, pack, unpack


@pytest.fixture(scope="module")
def sparse(tiny_model, tmp_path_factory):
    """A model whose encoder is 90 % zero."""
    folder = tmp_path_factory.mktemp("sparse") / "model"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(tiny_model, hidden_size=64, intermediate_size=128)
    model = BertModel(config)
    with torch.no_grad():
        for layer in model.encoder.layer:
            for weight in layer.parameters():
                if weight.ndim == 2:
                    weight.mul_(torch.rand_like(weight) < 0.1)
                    weight.add_(0.0)  # no negative zeros
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("compress", [True, False], ids=["zstd", "plain"])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_fp32_comes_back_bit_for_bit(shard, compress, sparse, tmp_path):
    packed = pack(
        sparse, tmp_path / "p", values="fp32", embeddings="fp32", compress=compress, shard=shard
    )
    unpack(tmp_path / "p", tmp_path / "u")
    before = load_file(sparse / "model.safetensors")
    after = load_file(tmp_path / "u" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype
    assert packed.bytes < packed.bytes_before
    assert sum(tensor.coding == "gaps" for tensor in packed.tensors) == 12
    assert all(tensor.error == 0 for tensor in packed.tensors)
    around = {path.name for path in sparse.iterdir()}
    assert {path.name for path in (tmp_path / "u").iterdir()} == around
    assert json.loads((sparse / "config.json").read_text()) == json.loads(
        (tmp_path / "u" / "config.json").read_text()
    )


def test_a_tensor_can_be_read_without_the_others(sparse, tmp_path):
    pack(sparse, tmp_path / "p", values="bf16", embeddings="int8")
    before = load_file(sparse / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    with open_packed(tmp_path / "p") as packed:
        assert sorted(packed.names) == sorted(before)
        assert torch.equal(packed.tensor(name), before[name].bfloat16().float())
        positions, values = packed.packed(name).nonzero()
        assert torch.equal(torch.from_numpy(positions), before[name].flatten().nonzero()[:, 0])
        assert torch.equal(
            torch.from_numpy(values), packed.tensor(name).flatten()[torch.from_numpy(positions)]
        )
        packed.check()
        with pytest.raises(ValueError, match=r"holds no tensor 'encoder.layer.1.*; did you mean"):
            packed.tensor("encoder.layer.1.output.dense.weights")
