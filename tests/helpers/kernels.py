"""Kernels, compiled one by one, and called on guarded memory."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pytest

from helpers.guarded import guarded
from sentei.runtime import library
from sentei.runtime.cpu import Target, host
from sentei.runtime.ir import Function
from sentei.runtime.kernels.kernel import Call, Slot, pair_order
from sentei.runtime.layout import quantised
from sentei.runtime.nonzeros import Nonzeros

pytest.importorskip("llvmlite")

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
_load = library.load


@cache
def targets() -> dict[str, Target]:
    """The CPUs that this one can pass for."""
    found = {}
    for isa in ("avx512", "avx2", "generic"):
        try:
            found[isa] = host(isa)
        except ValueError:
            continue
    best = found.get("avx512")
    if best is not None and best.bf16:  # as Ice Lake
        features = tuple(one for one in best.features if one != "avx512bf16")
        found["vnni"] = dataclasses.replace(best, features=features)
    return found


CPUS = tuple(targets())
FORMS = tuple(
    (cpu, precision)
    for cpu in CPUS
    for precision in targets()[cpu].precisions
    if (cpu, precision) != ("vnni", "fp32")  # as avx512
)
"""A CPU and a precision that it has instructions for."""


def load_apart(functions: Sequence[Function], target: Target) -> dict[str, int]:
    """As ``library.load``, each function on its own: those of a program serve the next."""
    return {one.name: _load([one], target)[one.name] for one in functions}


def addresses(arrays: Sequence[np.ndarray]) -> list[int]:
    return [one.ctypes.data for one in arrays]


def call(
    function: Function,
    target: Target,
    words: Sequence[int],
    buffers: Mapping[Slot, Sequence[np.ndarray]],
    *,
    item: int = 0,
    parts: int = 1,
    scratch: np.ndarray | None = None,
    records: Mapping[Call, np.ndarray] | None = None,
) -> None:
    """Run all parts of an item; slots that have no buffers are at address 0."""
    address = load_apart([function], target)[function.name]
    panels = max(len(some) for some in buffers.values())
    table = np.zeros((len(Slot), panels), np.int64)
    for slot, some in buffers.items():
        table[slot, : len(some)] = addresses(some)
    table = guarded(table)
    record = np.zeros(len(Call), np.int64)
    record[Call.BUFFERS], record[Call.PANELS] = table.ctypes.data, panels
    for word, array in (records or {}).items():
        record[word] = array.ctypes.data
    record, arguments = guarded(record), guarded(np.array(words, np.int64))
    where = 0 if scratch is None else scratch.ctypes.data
    for part in range(parts):
        _KERNEL(address)(
            arguments.ctypes.data, record.ctypes.data, where or None, item, part, parts
        )


def bf16(values: np.ndarray) -> np.ndarray:
    """fp32 to the nearest bf16, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A dense matrix with each row as int8, and what one step of it is worth."""
    nonzeros = Nonzeros.of(weight)
    numbers, scale = quantised(nonzeros)
    dense = np.zeros(weight.shape, np.int8)
    dense[nonzeros.rows, nonzeros.columns] = numbers
    return dense, scale


def in_pairs(rows: np.ndarray) -> np.ndarray:
    """(features, lanes) as products with bf16 read them."""
    return np.ascontiguousarray(rows[:, pair_order(rows.shape[1])])


def out_of_pairs(rows: np.ndarray) -> np.ndarray:
    result = np.empty_like(rows)
    result[:, pair_order(rows.shape[1])] = rows
    return result
