"""Packed tensors among plain ones in safetensors files: written, opened, and checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentei.messages import listing
from sentei.pack import format
from sentei.pack.tensor import PackedTensor
from sentei.untrusted import parse_json, reading

_KEY = "sentei"
"""Of the metadata of a file."""

FIX = "it is damaged or of another kind: get or pack it again"

DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
}
_TORCH = {name: dtype for dtype, name in DTYPES.items()}


def write(path: Path, tensors: Mapping[str, Tensor | PackedTensor]) -> None:
    """Write a file of packed and plain tensors.

    Raises:
        OSError: The disk is full.
    """
    held, plain = dict[str, Tensor](), dict[str, str]()
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            held[name] = torch.from_numpy(format.to_bytes(tensor))
        else:
            held[name] = tensor.contiguous()
            plain[name] = digest(name, held[name])
    packed = [name for name, one in tensors.items() if isinstance(one, PackedTensor)]
    about = {"version": format.VERSION, "packed": packed, "plain": plain}
    save_file(held, path, {"format": "pt", _KEY: json.dumps(about, separators=(",", ":"))})


def digest(name: str, tensor: Tensor) -> str:
    """The checksum of a plain tensor: of its name, shape and bytes."""
    flat = tensor.detach().contiguous().reshape(-1)
    shape = ",".join(map(str, tensor.shape))
    found = hashlib.sha256(f"{name}\n{shape}\n".encode())
    found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


class File:
    """A file of packed and plain tensors, mapped into memory and read one by one.

    Raises:
        ValueError: It is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, FIX):
            tensors: Any = safe_open(path, framework="pt")
            self._tensors = tensors
            about = parse_json(tensors.metadata()[_KEY], path)
            self.packed, self._plain = frozenset(about["packed"]), about["plain"]
            if odd := (self.packed | set(self._plain)) ^ set(tensors.keys()):
                raise ValueError(f"its list of tensors is not what it holds: {listing(odd, 3)}")
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
        """A packed tensor, its checksum compared, or a plain one as it is.

        Raises:
            ValueError: It is damaged.
        """
        with reading(self.path, FIX):
            if name not in self.packed:
                plain: Tensor = self._tensors.get_tensor(name)
                return plain
            record: Tensor = self._tensors.get_tensor(name)
            return format.from_bytes(name, record.numpy())

    def dense(self, name: str) -> Tensor:
        """A tensor as it is in memory.

        Raises:
            ValueError: It is damaged.
        """
        found = self.get(name)
        if isinstance(found, Tensor):
            return found
        with reading(f"{self.path}: {name}", FIX):
            return to_torch(found)

    def check(self, name: str) -> None:
        """Compare a tensor's checksum, and decode it.

        Raises:
            ValueError: It is not as it was written.
        """
        tensor = self.dense(name)
        if name in self._plain and digest(name, tensor) != self._plain[name]:
            raise ValueError(
                f"{self.path}: {name}: it is not as it was written (its checksum differs); {FIX}"
            )


def to_torch(packed: PackedTensor, out: Tensor | None = None) -> Tensor:
    """A packed tensor, decoded.

    Args:
        packed: The tensor.
        out: Of its shape and dtype, contiguous and on the CPU, to write to; None takes new memory.

    Raises:
        ValueError: It is damaged.
    """
    dtype = _TORCH[packed.dtype]
    if out is not None:
        packed.decode(to_numpy(out))
        return out
    return torch.from_numpy(packed.decode()).view(dtype)


def to_numpy(tensor: Tensor) -> Any:
    """A view of a tensor; bf16 as its bits."""
    bits = tensor.detach().view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor.detach()
    return bits.numpy()
