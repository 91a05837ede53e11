"""Files of packed and plain tensors: what is in them is read, and what was done to them seen."""

from __future__ import annotations

import json
import random
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from sentei.pack import encode
from sentei.pack.files import DTYPES, File, checksum, to_numpy, to_torch, write

PLAIN = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
}


def weights(seed, *shape):
    torch.manual_seed(seed)
    return torch.randn(shape) * (torch.rand(shape) < 0.2) + 0.0


def packed(name, tensor, **options):
    return encode(name, to_numpy(tensor), dtype=DTYPES[tensor.dtype], **options)


@pytest.fixture
def tensors():
    """As they are in memory: two of one shape, one of bf16, and plain ones."""
    return {
        "a.weight": weights(0, 8, 40),
        "b.weight": weights(1, 8, 40),
        "c.weight": weights(2, 5, 30).bfloat16(),
        "a.bias": torch.arange(8.0),
        "b.bias": torch.arange(8.0) - 3,
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3),
    }


@pytest.fixture
def file(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    write(
        path,
        {
            name: packed(name, tensor, kind="fp32") if "weight" in name else tensor
            for name, tensor in tensors.items()
        },
    )
    return path


def same(path, tensors):
    file = File(path)
    assert set(file.names) == set(tensors)
    for name, tensor in tensors.items():
        found = file.dense(name)
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), name


def test_what_was_written_is_read(file, tensors):
    same(file, tensors)
    out = torch.ones(8, 40)
    assert File(file).dense("a.weight", out) is out and torch.equal(out, tensors["a.weight"])
    assert File(file).packed == {"a.weight", "b.weight", "c.weight"}


def test_anything_that_reads_safetensors_reads_what_is_plain(file, tensors):
    found = load_file(file)
    assert torch.equal(found["a.bias"], tensors["a.bias"])
    assert found["a.weight"].dtype == torch.uint8 and found["a.weight"].ndim == 1


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_every_dtype_may_be_plain(dtype, tmp_path):
    tensor = torch.tensor([[0.0, 1.0, 3.0]]).to(dtype)
    write(tmp_path / "a.safetensors", {"w": tensor})
    assert File(tmp_path / "a.safetensors").dense("w").dtype == dtype
    header = (tmp_path / "a.safetensors").read_bytes()
    assert f'"dtype":"{PLAIN[dtype]}"'.encode() in header
    again = tensor.view(torch.uint8).clone().view(dtype)
    assert checksum("w", again) == checksum("w", tensor)
    assert checksum("w", tensor.reshape(3)) != checksum("w", tensor) != checksum("v", tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_torch(dtype):
    tensor = weights(0, 6, 50).to(dtype)
    assert torch.equal(to_torch(packed("w", tensor, kind="fp64")), tensor)


# ---------------------------------------------------------------------------------------- damage


def sentence(path, read=lambda file: [file.dense(name) for name in file.names]):
    with pytest.raises(ValueError) as caught:
        read(File(path))
    said = str(caught.value)
    assert said.startswith(str(path)) and len(said) < 800 and "\n" not in said
    return said.removeprefix(str(path))


def place(path):
    """Where the content of each tensor lies in a file."""
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header.pop("__metadata__")
    return {
        name: range(8 + size + one["data_offsets"][0], 8 + size + one["data_offsets"][1])
        for name, one in header.items()
    }


def test_a_flipped_bit_is_found_and_its_tensor_named(file):
    whole, rng = file.read_bytes(), random.Random(0)
    for name, where in place(file).items():
        for at in rng.sample(where, min(20, len(where))):
            harmed = bytearray(whole)
            harmed[at] ^= 1 << rng.randrange(8)
            file.write_bytes(harmed)
            assert name in sentence(file, lambda opened, name=name: opened.dense(name))


def test_a_flipped_bit_in_the_header_is_found_or_changes_nothing(file, tensors):
    whole = file.read_bytes()
    harmless = 0
    for at in range(8 + int.from_bytes(whole[:8], "little")):
        harmed = bytearray(whole)
        harmed[at] ^= 1 << at % 8
        file.write_bytes(harmed)
        try:
            same(file, tensors)
            harmless += 1
        except ValueError as error:
            assert str(error).startswith(str(file))
    assert harmless < 40  # spaces, and {"format": "pt"}


@pytest.mark.parametrize("left", [0, 4, 8, 300, -1])
def test_a_file_that_is_cut_short(left, file):
    file.write_bytes(file.read_bytes()[:left])
    sentence(file)


def test_a_file_that_goes_on(file):
    file.write_bytes(file.read_bytes() + b"more")
    sentence(file)


def change(path, edit):
    """Other tensors or other metadata, in a sound file."""
    held = {name: tensor.clone() for name, tensor in load_file(path).items()}
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    about = json.loads(header["__metadata__"]["sentei"])
    edit(held, about)
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(held, path, {"format": "pt", "sentei": text})


def exchange(held, one, other):
    held[one], held[other] = held[other], held[one]


def test_what_was_reordered_is_refused_and_named(file):
    whole = file.read_bytes()
    change(file, lambda held, about: exchange(held, "a.weight", "b.weight"))
    said = sentence(file)
    assert "a.weight" in said and "it is of 'b.weight'" in said
    file.write_bytes(whole)
    change(file, lambda held, about: exchange(held, "a.bias", "b.bias"))
    assert "a.bias is not as it was written" in sentence(file)


LISTS = {
    "a tensor less": lambda held, about: held.pop("a.bias"),
    "a packed tensor less": lambda held, about: held.pop("a.weight"),
    "a tensor more": lambda held, about: held.update(more=torch.ones(2)),
    "a packed tensor more": lambda held, about: about["packed"].append("d.weight"),
    "packed and plain": lambda held, about: about["plain"].update({"a.weight": "0" * 64}),
    "packed and said to be plain": lambda held, about: (
        about["packed"].remove("a.weight"),
        about["plain"].update({"a.weight": "0" * 64}),
    ),
    "plain and said to be packed": lambda held, about: (
        about["plain"].pop("a.bias"),
        about["packed"].append("a.bias"),
    ),
    "no version": lambda held, about: about.pop("version"),
    "version 0": lambda held, about: about.update(version=0),
    "version 2": lambda held, about: about.update(version=2),
    "version text": lambda held, about: about.update(version="1"),
    "no list": lambda held, about: about.pop("packed"),
    "a list of numbers": lambda held, about: about.update(packed=[1, 2]),
    "a list of lists": lambda held, about: about.update(packed=[["a.weight"]]),
    "a text": lambda held, about: about.update(packed="a.weight"),
    "no checksums": lambda held, about: about.update(plain=[*about["plain"]]),
    "checksums null": lambda held, about: about.update(plain=dict.fromkeys(about["plain"])),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_are_wrong(case, file):
    change(file, LISTS[case])
    sentence(file)


def test_another_version_is_named(file):
    change(file, LISTS["version 2"])
    assert "in version 2 of the format, and this Sentei reads version 1" in sentence(file)


def test_what_is_foreign(tensors, tmp_path):
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert re.search("it has no 'sentei'", sentence(tmp_path / "model.safetensors"))
    sentence(tmp_path / "nowhere.safetensors")
    sentence(tmp_path)
