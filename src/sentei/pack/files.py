"""Packed tensors among plain ones in a file of safetensors: written, and read one by one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentei.messages import listing
from sentei.pack import format
from sentei.pack.tensor import PackedTensor
from sentei.untrusted import parse_json, reading

FIX: Final = "it is damaged or of another kind: get or pack it again"

DTYPES: Final = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}
"""What may be packed."""

_KEY: Final = "sentei"
"""Of the metadata of a file."""

_STORED: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}
"""What safetensors calls dtypes, for checksums."""

_TORCH: Final = {name: dtype for dtype, name in DTYPES.items()}


def write(path: Path, tensors: Mapping[str, Tensor | PackedTensor]) -> None:
    """Write a file of packed and plain tensors.

    Raises:
        ValueError: The name or the dtype of one cannot be written.
        OSError: The disk is full.
    """
    held, packed, plain = dict[str, Tensor](), list[str](), dict[str, str]()
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            held[name] = torch.from_numpy(format.to_bytes(tensor))
            packed.append(name)
        else:
            held[name] = tensor.contiguous()
            plain[name] = checksum(name, held[name])
    about = {"version": format.VERSION, "packed": packed, "plain": plain}
    save_file(held, path, {"format": "pt", _KEY: json.dumps(about, separators=(",", ":"))})


def checksum(name: str, tensor: Tensor) -> str:
    """Of a plain tensor: SHA-256 of its name, its dtype, its shape, and its bytes.

    Raises:
        ValueError: It is of a dtype that no file of safetensors has.
    """
    if tensor.dtype not in _STORED:
        raise ValueError(f"{name} is of {tensor.dtype}, which is not packed")
    shape = ",".join(map(str, tensor.shape))
    digest = hashlib.sha256(f"{name}\n{_STORED[tensor.dtype]}\n{shape}\n".encode())
    digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class File:
    """A file of packed and plain tensors, mapped into memory and read one by one.

    Raises:
        ValueError: It is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, FIX):
            if not path.is_file():
                raise ValueError("it is missing, or no plain file")
            tensors: Any = safe_open(path, framework="pt")
            about = parse_json((tensors.metadata() or {})[_KEY], path)
            format.check_version(path, about["version"])
            self.packed, self._plain = frozenset(about["packed"]), about["plain"]
            stored = self.packed | set(self._plain)
            if odd := (stored ^ set(tensors.keys())) | (self.packed & set(self._plain)):
                raise ValueError(f"its list of tensors is not what it holds: {listing(odd, 3)}")
        self._tensors = tensors
        self.names = tuple(sorted(self.packed | set(self._plain)))

    def numbers(self) -> int:
        """Numbers of all tensors, as their headers claim; no more than those is read.

        Raises:
            ValueError: A header is damaged.
        """
        with reading(self.path, FIX), torch.device("cpu"):
            return sum(math.prod(self._claimed(name)) for name in self.names)

    def _claimed(self, name: str) -> Sequence[int]:
        stored = self._tensors.get_slice(name)
        if name not in self.packed:
            shape: list[int] = stored.get_shape()
            return shape
        return format.claimed(stored[: 2 * format.MOST_HEADER].numpy())

    def get(self, name: str) -> PackedTensor | Tensor:
        """A tensor as it is written, its checksum compared; its bytes are the file's.

        Raises:
            ValueError: It is damaged.
        """
        with reading(self.path, FIX):
            if name in self.packed:
                record: Tensor = self._tensors.get_tensor(name)
                return format.from_bytes(name, record.numpy())
            tensor: Tensor = self._tensors.get_tensor(name)
            if checksum(name, tensor) != self._plain[name]:
                raise ValueError(f"{name} is not as it was written (its checksum differs)")
            return tensor

    def dense(self, name: str, out: Tensor | None = None) -> Tensor:
        """A tensor as it is in memory.

        Args:
            name: Its name.
            out: Of its shape and dtype, contiguous and on the CPU, to write to; None takes new
                memory, and for a plain tensor the file's.

        Raises:
            ValueError: It is damaged.
        """
        found = self.get(name)
        if isinstance(found, Tensor):
            return found if out is None else out.copy_(found)
        with reading(self.path, FIX):
            return to_torch(found, out)


def to_torch(packed: PackedTensor, out: Tensor | None = None) -> Tensor:
    """A packed tensor, decoded.

    Args:
        packed: The tensor.
        out: Of its shape and dtype, contiguous and on the CPU, to write to; None takes new memory.

    Raises:
        ValueError: It is damaged.
    """
    if out is not None:
        packed.decode(to_numpy(out))
        return out
    return torch.from_numpy(packed.decode()).view(_TORCH[packed.dtype])


def to_numpy(tensor: Tensor) -> Any:
    """A view of a tensor; bf16 as its bits."""
    plain = tensor.detach()
    return (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
