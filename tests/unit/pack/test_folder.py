"""A folder packed, opened and made plain again."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel

from sentei import shrink
from sentei.models.contents import weight_files
from sentei.pack import PackedTensor, is_packed, open_packed, pack, unpack

QUERY = "encoder.layer.1.attention.self.query.weight"
TABLES = [f"embeddings.{name}_embeddings.weight" for name in ("position", "token_type", "word")]


def prune_(model, density=0.1):
    """All matrices of its blocks."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and any(part.isdigit() for part in name.split(".")):
                weight.copy_(torch.where(torch.rand_like(weight) < density, weight, 0))
    return model


@pytest.fixture(scope="module")
def sparse(tiny_model, tmp_path_factory):
    """A model whose encoder is 90 % zero, with its tokenizer."""
    folder = tmp_path_factory.mktemp("sparse") / "model"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    wide = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 200}
    prune_(BertModel(BertConfig.from_pretrained(tiny_model, **wide))).save_pretrained(folder)
    (folder / "notes.txt").write_text("Of a model.\n")
    return folder


def weights(folder):
    """All tensors of a folder's files."""
    found = {}
    for file in weight_files(folder):
        found |= load_file(file)
    return found


def same(before, after):
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("compress", [True, False], ids=["zstd", "plain"])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_fp32_comes_back_bit_for_bit(shard, compress, sparse, tmp_path):
    out, again = tmp_path / "packed", tmp_path / "again"
    options = {"values": "fp32", "embeddings": "fp32", "compress": compress}
    packed = pack(sparse, out, shard=shard, **options)
    files = weight_files(out)
    assert (len(files) > 2) == (shard == "20KB")
    assert packed.bytes == sum(file.stat().st_size for file in files) < packed.bytes_before / 2
    assert all(tensor.error == 0 for tensor in packed.tensors)
    unpack(out, again)
    same(weights(sparse), weights(again))
    around = {path.name for path in sparse.iterdir()} - {"model.safetensors"}
    for file in around:
        assert (again / file).read_bytes() == (sparse / file).read_bytes()
        if file != "config.json":
            assert (out / file).read_bytes() == (sparse / file).read_bytes()


def test_the_index_names_what_the_files_hold(sparse, tmp_path):
    pack(sparse, tmp_path / "p", shard="20KB")
    index = json.loads((tmp_path / "p" / "model.safetensors.index.json").read_text())
    held = {}
    for file in weight_files(tmp_path / "p"):
        with safe_open(file, framework="pt") as opened:
            held |= dict.fromkeys(opened.keys(), file.name)
    assert index["weight_map"] == held
    sizes = sum(tensor.nbytes for tensor in weights(tmp_path / "p").values())
    assert index["metadata"]["total_size"] == sizes
    unpack(tmp_path / "p", tmp_path / "u", shard="60KB")
    assert len(weight_files(tmp_path / "u")) > 2


def test_what_is_packed_is_what_was_asked_for(sparse, tmp_path):
    packed = pack(sparse, tmp_path / "p", values="bf16", embeddings="int8")
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    about = {"quant_method": "sentei", "version": 1, "values": "bf16", "embeddings": "int8"}
    assert config.pop("quantization_config") == about
    assert config == json.loads((sparse / "config.json").read_text())
    assert is_packed(tmp_path / "p") and not is_packed(sparse) and not is_packed(tmp_path)
    forms = {one.name: (one.coding, one.values) for one in packed.tensors}
    before, encoder = weights(sparse), {}
    for name, tensor in before.items():
        if name.startswith("encoder.") and tensor.ndim == 2:
            encoder[name] = ("gaps", "bf16")
    assert forms == {**dict.fromkeys(TABLES, ("dense", "int8")), **encoder}
    with open_packed(tmp_path / "p") as opened:
        assert {name for name in opened.names if opened.is_packed(name)} == set(forms)
        for one in packed.tensors:
            after = opened.tensor(one.name)
            error = (after - before[one.name]).norm() / before[one.name].norm()
            assert one.error == pytest.approx(float(error), rel=1e-4) and 0 < error < 0.01
            assert torch.equal(after == 0, before[one.name] == 0)
            if one.coding == "gaps":
                assert one.nonzeros == int(torch.count_nonzero(after))
            assert one.shape == tuple(after.shape) and one.bytes_before == after.nbytes
        for name in set(before) - set(forms):
            assert torch.equal(opened.tensor(name), before[name])
        opened.check()
    plain = sum(before[name].nbytes for name in set(before) - set(forms))
    assert packed.plain == plain
    assert plain + sum(one.bytes for one in packed.tensors) < packed.bytes < packed.bytes_before


def test_a_tensor_is_read_without_the_others(sparse, tmp_path):
    pack(sparse, tmp_path / "p")
    before = weights(sparse)[QUERY]
    with open_packed(tmp_path / "p") as packed:
        one = packed.packed(QUERY)
        assert isinstance(one, PackedTensor)
        positions, values = one.nonzero()
        assert np.array_equal(positions, np.flatnonzero(before.numpy()))
        out = torch.ones_like(before)
        assert packed.tensor(QUERY, out) is out and torch.equal(out, before.bfloat16().float())
        assert np.array_equal(values, out.numpy().reshape(-1)[positions])
        bias = QUERY.replace("weight", "bias")
        assert packed.tensor(bias, torch.ones(64)).sum() == 0
        with pytest.raises(ValueError, match=rf"{bias} is plain; take tensor"):
            packed.packed(bias)
        with pytest.raises(ValueError, match=rf"no tensor '{QUERY}s'; did you mean '{QUERY}'"):
            packed.tensor(QUERY + "s")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_of_16_bits_keeps_its_bits(dtype, sparse, tmp_path):
    BertModel.from_pretrained(sparse, dtype=dtype).save_pretrained(tmp_path / "half")
    packed = pack(tmp_path / "half", tmp_path / "p")
    kind = "bf16" if dtype == torch.bfloat16 else "fp16"
    assert {one.values for one in packed.tensors} == {kind}
    unpack(tmp_path / "p", tmp_path / "u")
    same(weights(tmp_path / "half"), weights(tmp_path / "u"))
    unpacked = pack(tmp_path / "half", tmp_path / "q", values="int8", embeddings="int8")
    assert {one.values for one in unpacked.tensors} == {"int8"}


def test_embeddings_are_found_under_a_head_and_where_the_head_shares_them(tmp_path):
    torch.manual_seed(0)
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 300}
    bert = BertForMaskedLM(BertConfig(hidden_size=64, intermediate_size=64, **size))
    bert.save_pretrained(tmp_path / "bert")
    packed = pack(tmp_path / "bert", tmp_path / "p", embeddings="int8")
    names = {one.name for one in packed.tensors}
    assert {f"bert.{name}" for name in TABLES} <= names <= {*weights(tmp_path / "bert")}
    size = {"n_layer": 1, "n_head": 2, "n_embd": 64, "vocab_size": 300, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**size)).save_pretrained(tmp_path / "gpt2")
    packed = pack(tmp_path / "gpt2", tmp_path / "q", embeddings="int8")
    assert {one.name for one in packed.tensors} == {
        "transformer.wte.weight",
        "transformer.wpe.weight",
    }


def test_a_shrunk_model_keeps_its_shapes(sparse, tmp_path):
    model = BertModel.from_pretrained(sparse)
    with torch.no_grad():
        for block in model.encoder.layer:
            block.intermediate.dense.weight[:40] = 0
            block.intermediate.dense.bias[:40] = 0
    smaller, _ = shrink.shrink(model)
    shrink.save(smaller, tmp_path / "shrunk")
    pack(tmp_path / "shrunk", tmp_path / "p", values="fp32", embeddings="fp32")
    unpack(tmp_path / "p", tmp_path / "u")
    same(weights(tmp_path / "shrunk"), weights(tmp_path / "u"))
    again = shrink.load(tmp_path / "u")
    assert again.encoder.layer[0].intermediate.dense.out_features == 88


# --------------------------------------------------------------------------------------- refused


def refused(call, out):
    with pytest.raises(ValueError) as caught:
        call()
    assert not out.exists() and "\n" not in str(caught.value)
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]
    return str(caught.value)


def test_options_that_are_none(sparse, tmp_path):
    out = tmp_path / "p"
    said = refused(lambda: pack(sparse, out, values="int4"), out)
    assert said == "values='int4': it must be fp32, bf16, fp16 or int8"
    for shard in ("0MB", "many", "5", "5TB", "-1GB", ""):
        assert "500MB or 5GB" in refused(lambda shard=shard: pack(sparse, out, shard=shard), out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        pack(sparse, tmp_path / "full")


def test_folders_that_are_none(sparse, tmp_path):
    out = tmp_path / "p"
    assert "no weights in safetensors" in refused(lambda: pack(tmp_path / "nowhere", out), out)
    shutil.copytree(sparse, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    assert "write it with save_pretrained" in refused(lambda: pack(tmp_path / "pickled", out), out)
    assert "it holds no packed model" in refused(lambda: unpack(sparse, out), out)
    pack(sparse, tmp_path / "once")
    assert "it is packed already" in refused(lambda: pack(tmp_path / "once", out), out)
    (tmp_path / "once" / "model.safetensors").unlink()
    assert "no weights in safetensors" in refused(lambda: unpack(tmp_path / "once", out), out)


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        (float("nan"), {"values": "int8"}, "int8 has no NaN"),
        (float("-inf"), {"values": "int8"}, "int8 has no NaN"),
        (1e38, {"values": "fp16"}, "it holds a number that is too large for fp16"),
    ],
)
def test_numbers_that_cannot_be_written(value, options, said, sparse, tmp_path):
    shutil.copytree(sparse, tmp_path / "model")
    held = weights(sparse)
    held[QUERY][3, 4] = value
    save_file(held, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    out = tmp_path / "p"
    sentence = refused(lambda: pack(tmp_path / "model", out, **options), out)
    assert sentence.startswith(f"{tmp_path / 'model' / 'model.safetensors'}: {QUERY}: {said}")
    pack(tmp_path / "model", out, values="bf16")
    with open_packed(out) as packed:
        after, before = packed.tensor(QUERY)[3, 4], torch.tensor(value).bfloat16().float()
        assert torch.equal(after, before) or (after.isnan() and before.isnan())


def test_damage_is_named_and_nothing_is_left(sparse, tmp_path):
    pack(sparse, tmp_path / "p")
    file = tmp_path / "p" / "model.safetensors"
    whole = bytearray(file.read_bytes())
    with open_packed(tmp_path / "p") as packed:
        record = packed.packed(QUERY).parts[-1].stored.tobytes()
    whole[whole.index(record) + 5] ^= 4
    file.write_bytes(whole)
    out = tmp_path / "u"
    said = refused(lambda: unpack(tmp_path / "p", out), out)
    assert said.startswith(f"{file}: cannot be read ({QUERY} is not as it was written")
    with open_packed(tmp_path / "p") as packed, pytest.raises(ValueError, match=QUERY):
        packed.check()


def test_a_tensor_in_two_files_is_refused(sparse, tmp_path):
    pack(sparse, tmp_path / "p", shard="20KB")
    first, second, *_ = weight_files(tmp_path / "p")
    shutil.copyfile(first, second)
    with pytest.raises(ValueError, match=r"is in .* too"):
        open_packed(tmp_path / "p")


def test_without_zstandard(sparse, tmp_path, monkeypatch):
    pack(sparse, tmp_path / "zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    fix = r"zstandard is needed: pip install 'sentei\[pack\]'"
    with pytest.raises(ModuleNotFoundError, match=fix):
        pack(sparse, tmp_path / "p")
    pack(sparse, tmp_path / "p", values="fp32", embeddings="fp32", compress=False)
    unpack(tmp_path / "p", tmp_path / "u")
    same(weights(sparse), weights(tmp_path / "u"))
    with open_packed(tmp_path / "zstd") as packed:
        with pytest.raises(ModuleNotFoundError, match=f"to read {QUERY}, .*{fix}"):
            packed.tensor(QUERY)
