"""A pruner's state as one safetensors file: nested tensors by name, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sentei.files import replacing

State = dict[str, Any]


def write(state: Mapping[str, Any], path: str | Path) -> None:
    """Write plain values, and mappings of names to tensors at any depth.

    An earlier file there stays whole until the new one is complete.

    Raises:
        OSError: It could not be written.
    """
    tensors: dict[str, Tensor] = {}
    plain = {}
    for key, value in state.items():
        inside = dict(_flatten(key, value))
        if inside:
            tensors |= inside
        else:
            plain[key] = value
    try:
        with replacing(Path(path)) as unfinished:
            save_file(tensors, unfinished, metadata={"sentei": json.dumps(plain)})
    except SafetensorError as error:
        raise OSError(f"{path}: cannot write the pruner's state: {error}") from error


def read(path: str | Path) -> State:
    """Read what :func:`write` wrote.

    Raises:
        ValueError: The file is missing, damaged or not a pruner's state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state: State = json.loads((file.metadata() or {})["sentei"])
            if not isinstance(state, dict):
                raise KeyError("sentei")
            for key in file.keys():
                *above, last = key.split(":")
                place = state
                for name in above:
                    place = place.setdefault(name, {})
                place[last] = file.get_tensor(key)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable pruner state: {error}") from error
    return state


def first_difference(old: Any, new: Any, path: str) -> str | None:
    """The first place where two plain values differ, in words."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            difference = first_difference(old.get(key), new.get(key), f"{path}.{key}")
            if difference:
                return difference
        return None
    return None if old == new else f"{path} was {old!r}, is {new!r}"


def _flatten(name: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key in value for pair in _flatten(f"{name}:{key}", value[key])]
    return []
