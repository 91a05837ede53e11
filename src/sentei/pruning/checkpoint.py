"""A pruner's state as one safetensors file: nested tensors by name, the rest as JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentei.distributed import anywhere, exchange_device, gathered, is_first
from sentei.files import expanded, replacing
from sentei.messages import short
from sentei.sharded import is_sharded
from sentei.untrusted import parse_json, reading

State = dict[str, Any]


def write(state: Mapping[str, Any], path: str | Path) -> None:
    """Write plain values, and mappings of names to tensors at any depth.

    An earlier file there stays whole until the new one is complete. Where tensors are sharded all
    processes call it together; they are gathered one by one, and the first process writes.

    Raises:
        OSError: It could not be written; in all of the processes.
    """
    tensors: dict[str, Tensor] = {}
    plain = {}
    for key, value in state.items():
        inside = dict(_flatten(key, value))
        if inside:
            tensors |= inside
        else:
            plain[key] = value
    if not any(is_sharded(tensor) for tensor in tensors.values()):
        return _write(plain, tensors, path)
    tensors = {name: whole for name, one in tensors.items() if (whole := gathered(one)) is not None}
    error: OSError | None = None
    if is_first():
        try:
            _write(plain, tensors, path)
        except OSError as raised:
            error = raised
    if anywhere(error is not None, exchange_device()):
        raise error or OSError(f"{path}: the first process could not write the pruner's state")
    return None


def _write(plain: Mapping[str, Any], tensors: dict[str, Tensor], path: str | Path) -> None:
    try:
        with replacing(expanded(path)) as unfinished:
            text = json.dumps(plain)
            metadata = {"sentei": text, "checksum": _checksum(text, tensors)}
            save_file(tensors, unfinished, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot write the pruner's state: {error}") from error


def read(path: str | Path) -> State:
    """Read what :func:`write` wrote.

    Raises:
        ValueError: The file is missing, damaged or not a pruner's state.
    """
    with reading(path, "it is no pruner's state, or damaged"):
        path = expanded(path)
        if not path.is_file():
            raise ValueError("there is no such file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        state: State = parse_json(metadata["sentei"], "its plain values")
        if "checksum" not in metadata:
            raise ValueError(f"it has no checksum; its format is {short(state.get('format'))}")
        if metadata["checksum"] != _checksum(metadata["sentei"], tensors):
            raise ValueError("its bytes have changed since it was written: the checksum differs")
        for key, tensor in tensors.items():
            *above, last = key.split(":")
            place = state
            for name in above:
                place = place.setdefault(name, {})
            place[last] = tensor
    return state


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of all that a file holds."""
    checksum = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        kind = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        checksum = zlib.crc32(content.numpy().data, zlib.crc32(kind.encode(), checksum))
    return f"{checksum:08x}"


def _flatten(name: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key in value for pair in _flatten(f"{name}:{key}", value[key])]
    return []
